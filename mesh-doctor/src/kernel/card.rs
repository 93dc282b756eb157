//! Driver and features of a network card (ethtool(8)), by SIOCETHTOOL: linux/ethtool.h. Needs no privilege.

use std::{io, os::fd::AsRawFd as _};

use socket2::{Domain, Socket, Type};

use crate::judge::checksums::Card;

/// linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
/// The set of features' names.
const ETH_SS_FEATURES: u32 = 4;
/// Length of a name in a set (`ETH_GSTRING_LEN`), and of a driver's.
const NAME: usize = 32;
/// Length of `ethtool_drvinfo`.
const DRIVER_INFO: usize = 196;
/// More features than any kernel has: they were 64 for many years.
const MOST_FEATURES: usize = 1024;
/// Of each 32 features the kernel tells which are available, asked for, on, and never changed.
const BLOCK: usize = 16;

/// What is known of a card. Of an interface without what is asked for, that is empty.
pub(crate) fn card(interface: &str) -> io::Result<Card> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut info = vec![0; DRIVER_INFO];
    put(&mut info, 0, ETHTOOL_GDRVINFO);
    let driver = match ask(&socket, interface, &mut info) {
        Ok(()) => text(info.get(4..4 + NAME).unwrap_or_default()),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        Err(error) => return Err(error),
    };
    Ok(Card {
        name: interface.to_owned(),
        driver,
        features: features(&socket, interface)?,
    })
}

/// The names of those that are on.
fn features(socket: &Socket, interface: &str) -> io::Result<Vec<String>> {
    // `ethtool_sset_info`: a mask of sets, and behind it the length of each.
    let mut info = vec![0; 20];
    put(&mut info, 0, ETHTOOL_GSSET_INFO);
    put(&mut info, 8, 1 << ETH_SS_FEATURES);
    ask(socket, interface, &mut info)?;
    let count = usize::try_from(number(&info, 16)).unwrap_or(usize::MAX);
    if count > MOST_FEATURES {
        return Err(io::Error::other(format!(
            "{count} features, and {MOST_FEATURES} are the most"
        )));
    }
    // `ethtool_gstrings`.
    let mut names = vec![0; 12 + count * NAME];
    put(&mut names, 0, ETHTOOL_GSTRINGS);
    put(&mut names, 4, ETH_SS_FEATURES);
    put(&mut names, 8, count as u32);
    ask(socket, interface, &mut names)?;
    // `ethtool_gfeatures`.
    let blocks = count.div_ceil(32);
    let mut states = vec![0; 8 + blocks * BLOCK];
    put(&mut states, 0, ETHTOOL_GFEATURES);
    put(&mut states, 4, blocks as u32);
    ask(socket, interface, &mut states)?;
    let names = names.get(12..).unwrap_or_default().chunks_exact(NAME);
    let on = names.enumerate().filter(|(at, _)| {
        let active = number(&states, 8 + at / 32 * BLOCK + 8);
        active & (1 << (at % 32)) != 0
    });
    Ok(on.map(|(_, name)| text(name)).collect())
}

/// Asks, and has the answer written over the question, which is as long as the longest answer.
fn ask(socket: &Socket, interface: &str, question: &mut [u8]) -> io::Result<()> {
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = question.as_mut_ptr().cast();
    // SAFETY: SIOCETHTOOL takes an ifreq whose data points to the structure of the command in it; each question is as long as
    // that with as many elements as it says, and both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&number.to_ne_bytes());
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..at + 4).and_then(|it| it.try_into().ok());
    field.map_or(0, u32::from_ne_bytes)
}

/// A text up to its first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default())
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_features_and_an_interface_that_is_not_there_has_none() {
        let loopback = card("lo").unwrap();
        assert!(
            loopback.features.iter().any(|it| it == "loopback"),
            "{loopback:?}"
        );
        assert!(
            loopback.features.iter().all(|it| !it.is_empty()),
            "{loopback:?}"
        );
        let error = card("none0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
