//! What is done inside a container: address, up, routes.

mod beside;

use std::{
    fs::File,
    io,
    net::{AddrParseError, IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use mesh_proto::mesh::InsideContainer;
use netlink_packet_route::{
    link::{LinkAttribute, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage},
};
use nix::sched::{CloneFlags, setns};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::sync::oneshot;

/// The kernel answers at once, unless somebody holds its network configuration lock.
const DEADLINE: Duration = Duration::from_secs(10);

/// The metric of a route beside a default route by the same interface: another interface's, which has none, comes before it
/// and is no obstacle.
const COVERED: u32 = 1024;

/// Why a container's interface could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// The namespace cannot be entered.
    #[error("cannot enter {path}, which takes root (CAP_SYS_ADMIN): {reason}")]
    Enter {
        /// The namespace.
        path: PathBuf,
        /// The kernel's reason.
        reason: io::Error,
    },
    /// The kernel refused a step.
    #[error("inside {path}: cannot {step}: {reason}")]
    Step {
        /// The namespace.
        path: PathBuf,
        /// What was tried.
        step: String,
        /// The kernel's reason.
        reason: String,
    },
    /// Another route to the same destination is there.
    #[error(
        "inside {path}: there is a route to {destination} by another way already: attach a second \
         interface without a default route"
    )]
    OtherRoute {
        /// The namespace.
        path: PathBuf,
        /// The destination.
        destination: Ipv4Net,
    },
    /// What is to be done is not written as it should be.
    #[error("the runtime's answer cannot be read: {0}")]
    Unreadable(String),
}

impl From<AddrParseError> for InsideError {
    fn from(error: AddrParseError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<ipnet::AddrParseError> for InsideError {
    fn from(error: ipnet::AddrParseError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// What is to be done.
struct Work {
    path: PathBuf,
    interface: String,
    mac: String,
    address: Ipv4Net,
    gateway: Ipv4Addr,
    routes: Vec<Ipv4Net>,
}

/// Gives the container's interface its address and routes, and brings it up. What is there already
/// is success. Returns the destinations that it has routes to: none where another interface of the same subnet has
/// them, beside which this one serves those who ask for its address.
///
/// # Errors
///
/// [`InsideError`]; what was done stays, and goes with the interface.
pub async fn configure(
    namespace: &Path,
    inside: &InsideContainer,
) -> Result<Vec<Ipv4Net>, InsideError> {
    let routes: Result<Vec<Ipv4Net>, _> = inside.routes.iter().map(|it| it.parse()).collect();
    let work = Work {
        path: namespace.to_owned(),
        interface: inside.interface.clone(),
        mac: inside.mac.clone(),
        address: inside.address.parse()?,
        gateway: inside.gateway.parse()?,
        routes: routes?,
    };
    enter(namespace, async move |handle| work.steps(&handle).await).await
}

/// Does something in a namespace, by a connection to the kernel there.
pub(crate) async fn enter<T: Send + 'static>(
    namespace: &Path,
    work: impl AsyncFnOnce(Handle) -> Result<T, InsideError> + Send + 'static,
) -> Result<T, InsideError> {
    let path = namespace.to_owned();
    let lost = |reason| InsideError::Enter {
        path: path.clone(),
        reason,
    };
    let (reply, answer) = oneshot::channel();
    let inside = path.clone();
    // A namespace is entered by a thread, and this one is of no use for anything else afterwards.
    let spawned = thread::Builder::new()
        .name("inside".to_owned())
        // Whoever asked may have gone away meanwhile.
        .spawn(move || drop(reply.send(run(&inside, work))));
    if let Err(error) = spawned {
        return Err(lost(error));
    }
    answer
        .await
        .unwrap_or_else(|_| Err(lost(io::Error::other("the thread inside it panicked"))))
}

fn run<T>(
    path: &Path,
    work: impl AsyncFnOnce(Handle) -> Result<T, InsideError>,
) -> Result<T, InsideError> {
    let enter = || -> io::Result<tokio::runtime::Runtime> {
        setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    let enter_failed = |reason| InsideError::Enter {
        path: path.to_owned(),
        reason,
    };
    let runtime = enter().map_err(enter_failed)?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(enter_failed)?;
        // It ends with the runtime.
        tokio::spawn(connection);
        tokio::time::timeout(DEADLINE, work(handle))
            .await
            .unwrap_or_else(|_| {
                Err(InsideError::Step {
                    path: path.to_owned(),
                    step: "talk to the kernel".to_owned(),
                    reason: format!("no answer within {} s", DEADLINE.as_secs()),
                })
            })
    })
}

impl Work {
    async fn steps(&self, handle: &Handle) -> Result<Vec<Ipv4Net>, InsideError> {
        let interface = &self.interface;
        let find = format!("find {interface}");
        let mut found = handle.link().get().match_name(interface.clone()).execute();
        let link = found
            .try_next()
            .await
            .map_err(|error| self.refused(&find, &error))?
            .ok_or_else(|| self.failed(&find, "it is not there".to_owned()))?;
        // The path may lead elsewhere by now, and every host has an eth0.
        if mac_of(&link).as_ref() != Some(&self.mac) {
            let reason = format!("the one there is not that of the runtime ({})", self.mac);
            return Err(self.failed(&find, reason));
        }
        let link = link.header.index;
        let address = self.address;
        let add = handle
            .address()
            .add(link, IpAddr::V4(address.addr()), address.prefix_len());
        self.settle(
            &format!("give {interface} the address {address}"),
            add.execute().await,
        )?;
        let up = LinkUnspec::new_with_index(link).up().build();
        let upped = handle.link().change(up).execute().await;
        self.settle(&format!("bring {interface} up"), upped)?;
        if self.is_second(handle, link).await? {
            self.route_by_source(handle, link).await?;
            return Ok(Vec::new());
        }
        let everywhere = self.routes.contains(&Ipv4Net::default());
        for &destination in &self.routes {
            let is_covered = everywhere && destination != Ipv4Net::default();
            let metric = if is_covered { COVERED } else { 0 };
            self.add_route(handle, link, destination, metric).await?;
        }
        Ok(self.routes.clone())
    }

    async fn add_route(
        &self,
        handle: &Handle,
        link: u32,
        destination: Ipv4Net,
        metric: u32,
    ) -> Result<(), InsideError> {
        let gateway = self.gateway;
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination.addr(), destination.prefix_len())
            .gateway(gateway)
            .output_interface(link)
            .priority(metric)
            .build();
        let step = format!("add the route to {destination} by {gateway}");
        match handle.route().add(message).execute().await {
            Err(error) if errno(&error) == Some(libc::EEXIST) => {
                let same = self.has_route(handle, link, destination).await?;
                same.then_some(()).ok_or_else(|| InsideError::OtherRoute {
                    path: self.path.clone(),
                    destination,
                })
            }
            other => other.map_err(|error| self.refused(&step, &error)),
        }
    }

    async fn has_route(
        &self,
        handle: &Handle,
        link: u32,
        destination: Ipv4Net,
    ) -> Result<bool, InsideError> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = handle.route().get(all).execute();
        while let Some(route) = routes
            .try_next()
            .await
            .map_err(|error| self.refused("read the routes", &error))?
        {
            if is_route(&route, link, self.gateway, destination) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is there already is success.
    fn settle(&self, step: &str, result: Result<(), rtnetlink::Error>) -> Result<(), InsideError> {
        match result {
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
            other => other.map_err(|error| self.refused(step, &error)),
        }
    }

    fn refused(&self, step: &str, error: &rtnetlink::Error) -> InsideError {
        let reason = match errno(error) {
            Some(errno) => io::Error::from_raw_os_error(errno).to_string(),
            None => error.to_string(),
        };
        self.failed(step, reason)
    }

    fn failed(&self, step: &str, reason: String) -> InsideError {
        InsideError::Step {
            path: self.path.clone(),
            step: step.to_owned(),
            reason,
        }
    }
}

/// The MAC address of an interface, as the runtime writes it.
fn mac_of(link: &LinkMessage) -> Option<String> {
    let address = link.attributes.iter().find_map(|it| match it {
        LinkAttribute::Address(bytes) => Some(bytes),
        _ => None,
    })?;
    let digits: Vec<String> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(digits.join(":"))
}

fn is_route(route: &RouteMessage, link: u32, gateway: Ipv4Addr, destination: Ipv4Net) -> bool {
    let has = |wanted: RouteAttribute| route.attributes.contains(&wanted);
    let to = match destination.prefix_len() {
        0 => true,
        _ => has(RouteAttribute::Destination(RouteAddress::Inet(
            destination.addr(),
        ))),
    };
    to && route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.header.destination_prefix_length == destination.prefix_len()
        && has(RouteAttribute::Gateway(RouteAddress::Inet(gateway)))
        && has(RouteAttribute::Oif(link))
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}
