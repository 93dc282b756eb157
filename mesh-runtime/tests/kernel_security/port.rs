//! Ports of a namespace that are taken again and again.

use std::{
    io::{self, ErrorKind},
    thread,
    time::{Duration, Instant},
};

use mesh_testbed::NetNs;

use crate::pair::SOON;

/// Binds a port that an earlier socket may just have left: a process that another test starts has that one as well,
/// until it has become its program. The more tests run at once, the more often.
pub(crate) fn bind<T: Send>(netns: &NetNs, bind: impl Fn() -> io::Result<T> + Copy + Send) -> T {
    let began = Instant::now();
    loop {
        match netns.run(bind).unwrap() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && began.elapsed() < SOON => {
                thread::sleep(Duration::from_millis(10));
            }
            bound => return bound.unwrap(),
        }
    }
}
