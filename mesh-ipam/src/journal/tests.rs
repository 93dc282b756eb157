use std::{
    fs::{self, File},
    io::BufReader,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use tempfile::TempDir;

use tokio::sync::oneshot;

use super::{
    file::{LeaseFile, Replaced, Storage},
    *,
};
use crate::{
    Done, Ipam, IpamError, Lease,
    committer::{Call as Waiting, Committer, Job, Shared},
    replay::{
        replay,
        tests::{Call, any_call, call, owner, request, subnet},
    },
};

const LIFE: &str = "this";

/// What the disk does not do next.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// How much of the next write is taken before the disk is full.
    write: Option<u8>,
    sync: bool,
    truncate: bool,
    /// Replacing the file fails, before the new one has its name or after.
    replace: Option<bool>,
}

struct Faulty {
    file: LeaseFile,
    faults: Arc<Mutex<Faults>>,
}

impl Faulty {
    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap()
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Storage for Faulty {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Some(part) = self.faults().write else {
            return self.file.write_at(bytes, offset);
        };
        let part = bytes.len() * usize::from(part) / 256;
        self.file.write_at(&bytes[..part], offset)?;
        Err(full())
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.faults().sync {
            true => Err(io::Error::from_raw_os_error(5)),
            false => self.file.sync(),
        }
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        match self.faults().truncate {
            true => Err(io::Error::from_raw_os_error(5)),
            false => self.file.truncate(len),
        }
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), Replaced> {
        match self.faults().replace {
            None => self.file.replace(bytes),
            Some(false) => Err(Replaced::No(full())),
            Some(true) => {
                self.file.replace(bytes)?;
                Err(Replaced::Perhaps(full()))
            }
        }
    }
}

/// A journal in `directory` on a disk that fails as it is told, and its pool.
fn faulty(directory: &Path) -> (Journal, Pool, Arc<Mutex<Faults>>) {
    drop(open(directory, LIFE).unwrap());
    let faults = Arc::new(Mutex::new(Faults::default()));
    let file = LeaseFile::open(directory).unwrap();
    let path = file.path();
    let read = replay(BufReader::new(file.file().unwrap()), LIFE).unwrap();
    let storage = Box::new(Faulty {
        file,
        faults: Arc::clone(&faults),
    });
    let journal = Journal::new(storage, path, LIFE, read.whole, false, &read.pool);
    (journal, read.pool, faults)
}

fn registry(directory: &Path) -> (Ipam, Arc<Mutex<Faults>>) {
    let (journal, pool, faults) = faulty(directory);
    (Ipam::start(journal, pool).unwrap(), faults)
}

fn file(directory: &Path) -> Pool {
    let file = File::open(directory.join("leases")).unwrap();
    let read = replay(BufReader::new(file), LIFE).unwrap();
    assert_eq!((read.damage, read.torn), (None, 0));
    read.pool
}

fn leases(pool: &Pool) -> Vec<Lease> {
    let leases = pool.leases().cloned();
    // The clock of the registry is the host's.
    leases.map(|lease| Lease { since: 0, ..lease }).collect()
}

async fn ask(ipam: &Ipam, call: &Call) -> Result<(), IpamError> {
    match *call {
        Call::Subnet(number) => ipam.set_subnet(subnet(number)).await,
        Call::Allocate {
            owner,
            endpoint,
            bound,
        } => {
            let request = request(owner, endpoint, bound);
            ipam.allocate(request).await.map(drop)
        }
        Call::Release(number) => ipam.release(&owner(number), None).await.map(drop),
    }
}

fn any_faults() -> impl Strategy<Value = Faults> {
    let fault = || prop::bool::weighted(0.2);
    let write = prop::option::weighted(0.2, any::<u8>());
    let replace = prop::option::weighted(0.3, any::<bool>());
    (write, fault(), fault(), replace).prop_map(|(write, sync, truncate, replace)| Faults {
        write,
        sync,
        truncate,
        replace,
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_the_disk_does_not_take_never_was(
        calls in prop::collection::vec((any_call(), any_faults()), 0..60),
    ) {
        let dir = TempDir::new().unwrap();
        let (ipam, faults) = registry(dir.path());
        let mut expected = Pool::default();
        block_on(async {
            for (it, fault) in &calls {
                *faults.lock().unwrap() = *fault;
                match ask(&ipam, it).await {
                    Ok(()) => drop(call(&mut expected, it)),
                    Err(IpamError::Refused(_)) => assert!(call(&mut expected, it).is_none()),
                    Err(IpamError::Disk(_)) => {
                        // Asked of a pool that has no disk, it is a change.
                        let applied = call(&mut expected, it).unwrap();
                        expected.undo(applied);
                    }
                    Err(IpamError::Closed) => panic!("closed"),
                }
                let read = ipam.leases().into_iter().map(|lease| Lease { since: 0, ..lease });
                assert_eq!(read.collect::<Vec<_>>(), leases(&expected));
            }
            // With the next change that it takes, the file is what the pool is: the order of
            // addresses that rest included.
            *faults.lock().unwrap() = Faults::default();
            let held = (0..8).find(|&number| expected.lease_of(&owner(number)).is_some());
            let number = held.unwrap_or(0);
            let last = [
                Call::Release(number),
                Call::Subnet(1),
                Call::Allocate { owner: number, endpoint: false, bound: false },
            ];
            for it in last {
                ask(&ipam, &it).await.ok();
                drop(call(&mut expected, &it));
            }
            ipam.close().await;
        });
        let found = file(dir.path());
        prop_assert_eq!(leases(&found), leases(&expected));
        let rest = |pool: &Pool| {
            let changes = pool.changes().filter(|it| matches!(it, Change::Released(_)));
            changes.collect::<Vec<_>>()
        };
        prop_assert_eq!(rest(&found), rest(&expected));
    }
}

/// A call as a committer has it, whose caller waits.
fn job(it: &Call) -> (Box<dyn Job>, oneshot::Receiver<Result<bool, IpamError>>) {
    let it = it.clone();
    let (call, answer) = Waiting::new(move |pool: &mut Pool, _| {
        let applied = call(pool, &it);
        let answer = applied.is_some();
        Ok(Done { answer, applied })
    });
    (Box::new(call), answer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_group_that_the_disk_does_not_take_is_taken_back_whole(
        before in prop::collection::vec(any_call(), 0..30),
        group in prop::collection::vec(any_call(), 0..30),
        part: u8,
    ) {
        let dir = TempDir::new().unwrap();
        let (journal, pool, faults) = faulty(dir.path());
        let shared = Arc::new(Shared::new(&pool));
        let mut committer = Committer { pool, journal, shared };
        let commit = |committer: &mut Committer, calls: &[Call]| {
            let (jobs, answers): (Vec<_>, Vec<_>) = calls.iter().map(job).unzip();
            committer.commit(jobs);
            let answers = answers.into_iter().map(|mut answer| answer.try_recv().unwrap());
            answers.collect::<Vec<_>>()
        };
        commit(&mut committer, &before);
        let expected = committer.pool.clone();
        let bytes = fs::read(dir.path().join("leases")).unwrap();
        faults.lock().unwrap().write = Some(part);
        for answer in commit(&mut committer, &group) {
            // Either it is told, or it would have changed nothing.
            prop_assert!(matches!(answer, Err(IpamError::Disk(_)) | Ok(false)), "{:?}", answer);
        }
        prop_assert_eq!(&committer.pool, &expected);
        prop_assert_eq!(fs::read(dir.path().join("leases")).unwrap(), bytes);
        *faults.lock().unwrap() = Faults::default();
        let answers = commit(&mut committer, &group);
        prop_assert!(answers.iter().all(Result::is_ok));
        prop_assert_eq!(&file(dir.path()), &committer.pool);
    }
}

#[test]
fn a_failure_says_the_disks_reason_and_what_to_do() {
    let dir = TempDir::new().unwrap();
    let (ipam, faults) = registry(dir.path());
    block_on(async {
        ipam.set_subnet(subnet(1)).await.unwrap();
        ipam.allocate(request(1, false, false)).await.unwrap();
        let mut changes = ipam.subscribe();
        let seen = *changes.borrow_and_update();
        faults.lock().unwrap().write = Some(100);
        let error = ipam.allocate(request(2, false, false)).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("leases: no storage space"), "{text}");
        assert!(
            text.contains("make room on its file system, then ask again"),
            "{text}"
        );
        // What needs no disk is answered nevertheless.
        let granted = ipam.allocate(request(1, false, false)).await.unwrap();
        assert!(!granted.new);
        assert_eq!(ipam.release(&owner(7), None).await, Ok(None));
        assert!(!changes.has_changed().unwrap());
        faults.lock().unwrap().write = None;
        ipam.allocate(request(2, false, false)).await.unwrap();
        assert!(*changes.borrow_and_update() > seen);
    });
    drop(ipam);
    assert_eq!(file(dir.path()).usage().leased, 2);
}

#[test]
fn the_file_does_not_grow_beyond_what_it_tells() {
    let dir = TempDir::new().unwrap();
    let (mut journal, mut pool) = open(dir.path(), LIFE).unwrap();
    let mut longest = 0;
    for round in 0..4000_u32 {
        let owner = u8::try_from(round % 5).unwrap();
        let lease = Call::Allocate {
            owner,
            endpoint: true,
            bound: false,
        };
        for it in [Call::Subnet(1), Call::Release(owner), lease] {
            if let Some(applied) = call(&mut pool, &it) {
                journal.stage(applied.change(), pool.subnet());
            }
        }
        // A group of some calls, as committers have them.
        if round % 16 == 15 {
            journal.commit(&pool).unwrap();
            journal.compact(&pool);
            let length = fs::metadata(dir.path().join("leases")).unwrap().len();
            assert_eq!(journal.len, length);
            longest = longest.max(length);
        }
    }
    let spare = journal.storage.spare();
    assert!(longest > spare && longest < spare + 16 * 1024, "{longest}");
    let found = file(dir.path());
    let changes = |pool: &Pool| pool.changes().collect::<Vec<_>>();
    assert_eq!(changes(&found), changes(&pool));
}

#[test]
fn the_file_is_nobody_elses_to_read() {
    let dir = TempDir::new().unwrap();
    let directory = dir.path().join("a/b");
    drop(open(&directory, LIFE).unwrap());
    let mode = fs::metadata(directory.join("leases")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!directory.join("leases.new").exists());
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn damaged_files_are_kept_aside_and_not_without_end() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("leases");
    let (mut journal, mut pool) = open(dir.path(), LIFE).unwrap();
    for number in 0..3 {
        let it = match number {
            0 => Call::Subnet(1),
            owner => Call::Allocate {
                owner,
                endpoint: false,
                bound: false,
            },
        };
        let applied = call(&mut pool, &it).unwrap();
        journal.stage(applied.change(), pool.subnet());
    }
    journal.commit(&pool).unwrap();
    for round in 0..10 {
        let mut damaged = fs::read_to_string(&path).unwrap();
        damaged.push_str(&format!("round {round}\n"));
        fs::write(&path, damaged).unwrap();
        let (_, found) = open(dir.path(), LIFE).unwrap();
        assert_eq!(found, pool);
    }
    let aside: Vec<String> = (1..=4).map(|it| format!("leases.damaged-{it}")).collect();
    assert_eq!(names(dir.path())[1..], aside);
    let last = fs::read_to_string(dir.path().join(&aside[3])).unwrap();
    assert!(last.ends_with("round 9\n"), "{last}");
    assert!(!fs::read_to_string(&path).unwrap().contains("round"));
}

#[test]
fn a_file_of_another_version_is_set_aside_whole() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("leases");
    let newer = record::header_of("v2") + "what nobody knows\n";
    fs::write(&path, &newer).unwrap();
    let (_, pool) = open(dir.path(), LIFE).unwrap();
    assert_eq!(pool, Pool::default());
    assert_eq!(names(dir.path()), ["leases", "leases.damaged-1"]);
    let aside = fs::read_to_string(dir.path().join("leases.damaged-1")).unwrap();
    assert_eq!(aside, newer);
    assert_eq!(fs::read_to_string(&path).unwrap(), record::header());
}

#[test]
fn a_torn_line_is_cut_off_before_another_follows() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("leases");
    drop(open(dir.path(), LIFE).unwrap());
    let torn = record::header() + "0123456789abcdef {\"subnet\"";
    fs::write(&path, torn).unwrap();
    let (mut journal, mut pool) = open(dir.path(), LIFE).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), record::header());
    let applied = call(&mut pool, &Call::Subnet(1)).unwrap();
    journal.stage(applied.change(), pool.subnet());
    journal.commit(&pool).unwrap();
    assert_eq!(file(dir.path()), pool);
    assert_eq!(names(dir.path()), ["leases"]);
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let error = open(&path, LIFE).err().unwrap().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
}

#[test]
fn a_pipe_by_the_files_name_is_refused_and_not_waited_for() {
    let dir = TempDir::new().unwrap();
    let mode = nix::sys::stat::Mode::S_IRUSR;
    nix::unistd::mkfifo(&dir.path().join("leases"), mode).unwrap();
    let error = open(dir.path(), LIFE).err().unwrap().to_string();
    assert!(error.contains("leases is no regular file"), "{error}");
}

#[test]
fn an_empty_file_is_damage_and_is_kept_aside() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("leases"), "").unwrap();
    let (_, pool) = open(dir.path(), LIFE).unwrap();
    assert_eq!(leases(&pool), []);
    assert_eq!(names(dir.path()), ["leases", "leases.damaged-1"]);
}

#[tokio::test]
async fn a_file_that_can_only_be_read_is_told_and_never_changed() {
    let dir = TempDir::new().unwrap();
    let ipam = Ipam::open(dir.path(), LIFE).unwrap();
    ipam.set_subnet(subnet(1)).await.unwrap();
    let held = ipam.allocate(request(0, true, false)).await.unwrap().lease;
    drop(ipam);
    let before = fs::read(dir.path().join("leases")).unwrap();
    let why = io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "it is mounted so");
    let ipam = Ipam::open_to_read(dir.path(), LIFE, &why).unwrap();
    assert_eq!(ipam.leases(), std::slice::from_ref(&held));
    ipam.set_subnet(subnet(1)).await.unwrap();
    for error in [
        ipam.allocate(request(1, false, false)).await.unwrap_err(),
        ipam.release(&held.owner, None).await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("it is mounted so"), "{text}");
        assert!(text.contains("started anew"), "{text}");
    }
    assert_eq!(ipam.leases(), [held]);
    drop(ipam);
    assert_eq!(fs::read(dir.path().join("leases")).unwrap(), before);
}
