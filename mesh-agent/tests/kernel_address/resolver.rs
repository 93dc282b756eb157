//! A resolver on a host's loopback address, for the processes that it is given to alone.

use std::{
    ffi::CString,
    fs, io,
    net::{Ipv4Addr, UdpSocket},
    os::unix::process::CommandExt as _,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;

use crate::host::Host;

/// What the resolver does with questions.
#[derive(Debug, Clone)]
pub(crate) enum Names {
    /// It answers none.
    Silent,
    /// No name exists.
    None,
    /// Every name has these addresses, which are answered in another order each time.
    Addresses(Vec<Ipv4Addr>),
}

#[derive(Debug)]
struct State {
    names: Names,
    /// How many questions for IPv4 addresses came.
    questions: usize,
}

pub(crate) struct Resolver {
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    files: TempDir,
}

impl Resolver {
    pub(crate) fn start(host: &Host, names: Names) -> Self {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 53));
        let socket = host.0.run(bind).unwrap().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let state = Arc::new(Mutex::new(State {
            names,
            questions: 0,
        }));
        let stopped = Arc::new(AtomicBool::new(false));
        let files = tempfile::tempdir().unwrap();
        // As long as may be: who gives up, does not because the resolver's client does.
        let configuration = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n";
        fs::write(files.path().join("resolv.conf"), configuration).unwrap();
        fs::write(files.path().join("hosts"), "").unwrap();
        let (shared, stop) = (Arc::clone(&state), Arc::clone(&stopped));
        let thread = thread::spawn(move || serve(&socket, &shared, &stop));
        Self {
            state,
            stopped,
            thread: Some(thread),
            files,
        }
    }

    pub(crate) fn say(&self, names: Names) {
        self.state.lock().unwrap().names = names;
    }

    pub(crate) fn questions(&self) -> usize {
        self.state.lock().unwrap().questions
    }

    /// Makes the command's process see no other resolver and no file of names.
    pub(crate) fn serve_alone(&self, command: &mut Command) {
        let files = ["resolv.conf", "hosts"].map(|name| {
            let own = self.files.path().join(name);
            let own = CString::new(own.to_str().unwrap()).unwrap();
            (own, CString::new(format!("/etc/{name}")).unwrap())
        });
        let alone = move || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none)?;
            for (own, file) in &files {
                mount(
                    Some(own.as_c_str()),
                    file.as_c_str(),
                    none,
                    MsFlags::MS_BIND,
                    none,
                )?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls alone; every string is made before.
        unsafe {
            command.pre_exec(alone);
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, state: &Mutex<State>, stopped: &AtomicBool) {
    let mut buffer = [0; 512];
    while !stopped.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if let Some(answer) = answer(&buffer[..length], &mut state.lock().unwrap()) {
            let _client_is_gone = socket.send_to(&answer, client);
        }
    }
}

/// The answer to a question with one name (RFC 1035 section 4).
fn answer(question: &[u8], state: &mut State) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const IPV4: [u8; 2] = [0, 1];
    let name = question.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    let end = HEADER + name + 5;
    let is_ipv4 = question.get(end - 4..end - 2)? == IPV4;
    state.questions += usize::from(is_ipv4);
    let (code, addresses) = match &mut state.names {
        Names::Silent => return None,
        Names::None => (3, Vec::new()),
        Names::Addresses(addresses) if is_ipv4 => {
            addresses.rotate_left(1);
            (0, addresses.clone())
        }
        Names::Addresses(_) => (0, Vec::new()),
    };
    let mut answer = question.get(..end)?.to_vec();
    // An answer, recursion available, one question, so many records and no others.
    answer[2..HEADER].copy_from_slice(&[
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::try_from(addresses.len()).unwrap(),
        0,
        0,
        0,
        0,
    ]);
    for address in addresses {
        // The question's name, IPv4, Internet, no time to live, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
