//! The token by which this host shows that it is the one that goes on as its node, and no copy.
//!
//! Each answer of the control plane hands out another ([`mesh_rest::heartbeat_token`]). It is kept
//! beside the node key, so that an agent that was killed, or a host that was restarted, goes on
//! with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use mesh_problems::catalog::agent::TOKEN_NOT_KEPT;
use mesh_rest::{client::Tokens, heartbeat_token::HeartbeatToken};
use tracing::{info, warn};

use crate::problems::Problems;

/// Name of the token's file in the state directory.
pub const FILE_NAME: &str = "node-token";

/// No token is longer.
const LONGEST: u64 = 64;

/// The token of this host.
#[derive(Debug)]
pub struct TokenKeeper {
    path: Option<PathBuf>,
    kept: Mutex<Kept>,
    problems: Problems,
}

#[derive(Debug, Default)]
struct Kept {
    token: Option<HeartbeatToken>,
    is_failing: bool,
}

impl TokenKeeper {
    /// The token that is kept in `directory`. One that cannot be read counts as none: the control
    /// plane then takes this host for the node, as it does an agent of an earlier version.
    #[must_use]
    pub fn open(directory: &Path, problems: Problems) -> Self {
        let path = directory.join(FILE_NAME);
        let token = read(&path);
        Self {
            path: Some(path),
            kept: Mutex::new(Kept {
                token,
                is_failing: false,
            }),
            problems,
        }
    }

    /// One that keeps its token in memory only.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            path: None,
            kept: Mutex::default(),
            problems: Problems::default(),
        }
    }
}

impl Tokens for TokenKeeper {
    fn token(&self) -> Option<HeartbeatToken> {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .token
    }

    /// Keeps what was answered, if it is newer than what is kept: an answer that was long on its way, or waited for,
    /// may come after that to a later call. It is not waited until that is on the disk: after a power cut an
    /// older token may be there, and then this host is held off until the node timeout has passed
    /// since its last heartbeat, which starting takes about as long as.
    fn keep(&self, token: HeartbeatToken) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.token.is_some_and(|kept| token.number <= kept.number) {
            return;
        }
        kept.token = Some(token);
        let Some(path) = &self.path else { return };
        let written = write(path, token);
        match &written {
            Err(error) if !kept.is_failing => warn!(name: "token-cannot-kept",
                code = TOKEN_NOT_KEPT.code, %error, path = %path.display(),
                "the token cannot be kept: an agent that starts again may be taken for a copy until \
                 the node timeout has passed"
            ),
            Ok(()) if kept.is_failing => info!(name: "token-kept-again", "the token is kept again"),
            _ => {}
        }
        kept.is_failing = written.is_err();
        match written {
            Err(error) => {
                let observed = format!("{}: {error}", path.display());
                self.problems.raise(&TOKEN_NOT_KEPT, observed);
            }
            Ok(()) => self.problems.clear(&TOKEN_NOT_KEPT),
        }
    }
}

fn read(path: &Path) -> Option<HeartbeatToken> {
    use io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whole or not at all, also if this process is killed meanwhile.
fn write(path: &Path, token: HeartbeatToken) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    writeln!(file, "{token}")?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn token(number: u64) -> HeartbeatToken {
        HeartbeatToken { number, nonce: 7 }
    }

    #[test]
    fn the_token_of_an_earlier_life_is_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let keeper = TokenKeeper::open(directory.path(), Problems::default());
        assert_eq!(keeper.token(), None);
        keeper.keep(token(1));
        keeper.keep(token(2));
        assert_eq!(
            TokenKeeper::open(directory.path(), Problems::default()).token(),
            Some(token(2))
        );
        let path = directory.path().join(FILE_NAME);
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn that_it_cannot_be_kept_is_a_problem_until_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (problems, state) = (Problems::default(), directory.path().join("state"));
        let keeper = TokenKeeper::open(&state, problems.clone());
        keeper.keep(token(1));
        assert!(problems.has(&TOKEN_NOT_KEPT));
        fs::create_dir(&state).unwrap();
        keeper.keep(token(2));
        assert!(!problems.has(&TOKEN_NOT_KEPT));
    }

    #[test]
    fn an_answer_that_comes_late_does_not_take_the_place_of_a_newer_one() {
        let keeper = TokenKeeper::in_memory();
        keeper.keep(token(3));
        keeper.keep(token(2));
        keeper.keep(HeartbeatToken {
            number: 3,
            nonce: 8,
        });
        assert_eq!(keeper.token(), Some(token(3)));
    }

    #[test]
    fn a_damaged_token_is_none_and_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        for damage in [&b""[..], b"\xff\xfe", b"1.2", &[b'1'; 100_000]] {
            fs::write(&path, damage).unwrap();
            let keeper = TokenKeeper::open(directory.path(), Problems::default());
            assert_eq!(keeper.token(), None);
            keeper.keep(token(3));
            assert_eq!(
                TokenKeeper::open(directory.path(), Problems::default()).token(),
                Some(token(3))
            );
        }
    }

    #[test]
    fn a_token_that_cannot_be_kept_is_come_with_all_the_same() {
        for keeper in [
            TokenKeeper::open(Path::new("/nonexistent"), Problems::default()),
            TokenKeeper::in_memory(),
        ] {
            keeper.keep(token(1));
            assert_eq!(keeper.token(), Some(token(1)));
        }
    }
}
