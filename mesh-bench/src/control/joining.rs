//! Hosts that join by a token, and speak TLS with their own certificates from then on.

use std::{ops::Range, sync::Arc};

use anyhow::Context as _;
use mesh_credentials::{
    control_plane_check::{ControlPlaneCheck, KnownBy},
    join_token::JoinToken,
    node_key_pair::NodeKeyPair,
    tls,
    trust::Trust,
};
use mesh_rest::{
    admitted::Admitted,
    join::{Join, Joined},
    join_token::{CreateToken, CreatedToken},
};
use rustls::{ClientConfig, client::Resumption};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    agents::{registration, text},
    connection::{Connection, Way},
    measure::OPENING,
    server::Server,
};

/// Connections over which hosts join: each takes a turn at the database.
const JOINING: u32 = 64;

/// Lets so many hosts join this control plane. How each of them reaches it from then on.
pub(super) async fn join_all(server: &Server, hosts: u32) -> anyhow::Result<Vec<Way>> {
    let create = CreateToken {
        uses: Some(hosts),
        ..CreateToken::default()
    };
    let mut connection = Connection::open_admin(&server.admin_socket()).await?;
    let created: CreatedToken = connection
        .post("/api/tokens", &text(&create))
        .await?
        .json()?;
    let token: JoinToken = created.token.parse()?;
    // As an agent that knows no more than its token.
    let check = ControlPlaneCheck::new(KnownBy::Key(token.authority));
    let pinned = Way {
        tls: Some(client(tls::client(Arc::new(check), None)?)),
        ..server.address.into()
    };
    let mut joining = JoinSet::new();
    for first in 0..JOINING {
        let (pinned, token) = (pinned.clone(), created.token.clone());
        joining.spawn(async move {
            let mut ways = Vec::new();
            let mut connection = None;
            for host in (first..hosts).step_by(JOINING as usize) {
                let connection = match &mut connection {
                    Some(connection) => connection,
                    none => none.insert(Connection::open(pinned.clone()).await?),
                };
                ways.push((host, join(connection, &pinned, &token).await?));
            }
            anyhow::Ok(ways)
        });
    }
    let mut ways = Vec::new();
    while let Some(joined) = joining.join_next().await {
        ways.extend(joined.context("a host failed")??);
    }
    ways.sort_by_key(|(host, _)| *host);
    Ok(ways.into_iter().map(|(_, way)| way).collect())
}

/// One host joins.
async fn join(connection: &mut Connection, pinned: &Way, token: &str) -> anyhow::Result<Way> {
    let key = NodeKeyPair::make()?;
    let join = Join {
        token: token.to_owned(),
        request: key.request()?,
        node_key: None,
    };
    let joined: Joined = connection.post("/api/join", &text(&join)).await?.json()?;
    let check = ControlPlaneCheck::new(KnownBy::Trust(Trust::from_pem(&joined.authorities)?));
    let identity = (joined.certificate.as_str(), &*key.pem());
    Ok(Way {
        tls: Some(client(tls::client(Arc::new(check), Some(identity))?)),
        ..pinned.clone()
    })
}

/// Without room for sessions to go on with, which the control plane does not offer.
fn client(mut client: ClientConfig) -> Arc<ClientConfig> {
    client.resumption = Resumption::disabled();
    Arc::new(client)
}

/// Registers hosts at once, each so, from an address and over a connection of its own, and once.
pub(super) async fn register(
    ways: Vec<Way>,
    hosts: Range<u32>,
) -> anyhow::Result<Vec<(Admitted, Way)>> {
    let opening = Arc::new(Semaphore::new(OPENING));
    let mut registrations = JoinSet::new();
    for (number, way) in hosts.zip(ways) {
        let way = way.of_host(number);
        let opening = Arc::clone(&opening);
        registrations.spawn(async move {
            let slot = opening.acquire_owned().await?;
            let mut connection = Connection::open(way.clone()).await?;
            drop(slot);
            let answer = connection
                .post("/api/nodes/register", &registration(number, None))
                .await?;
            anyhow::Ok((answer.json()?, way))
        });
    }
    registrations.join_all().await.into_iter().collect()
}
