//! Looks after the file of the authorities' keys while a control plane runs: it has them in memory, and nobody would notice
//! before the next start that the file was emptied, removed or replaced.
//!
//! What is lost is written again, unless there are other keys in the file: those may be nowhere else.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_credentials::authority_file::{self, FiledAuthority};
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::secret_file::{self, Found, SecretFileError};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::authorities::Authorities;
use crate::registry::Registry;

/// How often it is looked at. What is found twice in a row counts: whoever copies a file there has not done so at once.
const INTERVAL: Duration = Duration::from_secs(3);

/// How long a look may take before that is said; a network file system may not answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// What is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it is missing")]
    Missing,
    #[error("there is no private key in it")]
    NoKey,
    #[error("it lacks some of them")]
    Short,
    #[error("there are other keys in it")]
    OtherKeys,
    #[error("what is in it cannot be used: {0}")]
    Damaged(String),
    #[error("{0}")]
    OpenToOthers(String),
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("its file system has not answered for {} s", DEADLINE.as_secs())]
    Silent,
}

impl Fault {
    /// Whether nothing is lost when the file is written again.
    fn loses_nothing(&self) -> bool {
        matches!(self, Self::Missing | Self::NoKey | Self::Short)
    }
}

/// What came of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    file: PathBuf,
    fault: Option<Fault>,
    /// What came of writing it again.
    written: Option<Result<(), String>>,
}

/// Looks after it until `stop`.
pub(crate) async fn follow(registry: Arc<Registry>, stop: CancellationToken) {
    let watched = async {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Watch::default();
        let mut looking: Option<oneshot::Receiver<Option<Look>>> = None;
        loop {
            interval.tick().await;
            // One look at a time: of those that hang there would be ever more.
            let mut look = match looking.take() {
                Some(look) => look,
                None => match begin(Arc::clone(&registry), watch.last.clone()) {
                    Some(look) => look,
                    None => continue,
                },
            };
            match tokio::time::timeout(DEADLINE, &mut look).await {
                Ok(Ok(Some(found))) => watch.found(found),
                // There is nothing to look after, or the thread ended by a bug, which it has said.
                Ok(Ok(None) | Err(_)) => {}
                Err(_) => {
                    looking = Some(look);
                    if let Some(file) = registry.authorities.file() {
                        watch.say(&file, &Fault::Silent, None);
                    }
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watched => {}
    }
}

/// A look, on a thread that nobody waits for: the end of the process would wait for one of the runtime. `None`: the system
/// gives no thread now.
fn begin(registry: Arc<Registry>, last: Option<Fault>) -> Option<oneshot::Receiver<Option<Look>>> {
    let (answer, looking) = oneshot::channel();
    let look = move || {
        // Whoever asked may have stopped.
        let _ = answer.send(look(&registry.authorities, last.as_ref()));
    };
    let thread = std::thread::Builder::new().name("key-file".to_owned());
    thread.spawn(look).ok().map(|_| looking)
}

/// Looks at the file, and writes it again where that is wanted: what is wrong with it was so at the `last` look already.
/// `None`: there is no file, or no key that it should have.
fn look(authorities: &Authorities, last: Option<&Fault>) -> Option<Look> {
    let _turn = authorities.writing();
    let (file, held) = authorities.held()?;
    let found = secret_file::look(&file);
    let in_file = found.as_ref().ok().and_then(Option::as_ref);
    let in_file = in_file.and_then(|found| authority_file::parse(&found.text).ok());
    let in_file: Option<Vec<KeyDigest>> =
        in_file.map(|all| all.iter().map(|it| it.trusted().key()).collect());
    let fault = judge(found, &file, &held);
    if fault.is_none()
        && let Some(in_file) = in_file
        && authorities.catch_up(&in_file)
    {
        info!(name: "file-certificate-authority-could-written", file = %file.display(), "the file of the certificate authority could be written");
    }
    let is_wanted = |fault: &Fault| Some(fault) == last && fault.loses_nothing();
    let written = fault.as_ref().filter(|it| is_wanted(it)).map(|fault| {
        let text = authority_file::text(&held);
        let written = match fault {
            // Somebody may put one there right now.
            Fault::Missing => secret_file::create(&file, &text).map(drop),
            _ => secret_file::replace(&file, &text),
        };
        written.map_err(|error| error.to_string())
    });
    Some(Look {
        file,
        fault,
        written,
    })
}

/// What is wrong with a file that should have these keys.
fn judge(
    found: Result<Option<Found>, SecretFileError>,
    file: &Path,
    held: &[FiledAuthority],
) -> Option<Fault> {
    let found = match found {
        Err(error) => return Some(Fault::Unreadable(error.to_string())),
        Ok(None) => return Some(Fault::Missing),
        Ok(Some(found)) => found,
    };
    if !authority_file::has_key(&found.text) {
        return Some(Fault::NoKey);
    }
    let in_file: HashSet<KeyDigest> = match authority_file::parse(&found.text) {
        Err(error) => return Some(Fault::Damaged(error.to_string())),
        Ok(authorities) => authorities.iter().map(|it| it.trusted().key()).collect(),
    };
    let held: HashSet<KeyDigest> = held.iter().map(|it| it.trusted().key()).collect();
    if held.is_subset(&in_file) {
        let open = found.only_its_owners(file).err();
        return open.map(|error| Fault::OpenToOthers(error.to_string()));
    }
    match in_file.is_subset(&held) {
        true => Some(Fault::Short),
        false => Some(Fault::OtherKeys),
    }
}

/// What was found last, and what was said of it.
#[derive(Debug, Default)]
struct Watch {
    last: Option<Fault>,
    said: Option<(Fault, Option<Result<(), String>>)>,
}

impl Watch {
    fn found(&mut self, look: Look) {
        let Look {
            file,
            fault,
            written,
        } = look;
        let before = std::mem::replace(&mut self.last, fault.clone());
        match fault {
            None => {
                if self.said.take().is_some() {
                    info!(name: "file-certificate-authority-right-again", file = %file.display(), "the file of the certificate authority is right again");
                }
            }
            Some(fault) if before.as_ref() == Some(&fault) => self.say(&file, &fault, written),
            Some(_) => {}
        }
    }

    /// Says it, unless it was said.
    fn say(&mut self, file: &Path, fault: &Fault, written: Option<Result<(), String>>) {
        let said = Some((fault.clone(), written));
        if self.said == said {
            return;
        }
        let (file, why) = (file.display(), fault);
        match said.as_ref().and_then(|(_, written)| written.as_ref()) {
            Some(Ok(())) => error!(name: "file-certificate-authority-not-hold",
                %file, %why,
                "the file of the certificate authority did not hold the keys that this control plane signs with; it has them \
                 in memory, and has written them there again. Keep a copy elsewhere: quilt-mesh-control ca export --file FILE"
            ),
            Some(Err(error)) => error!(name: "file-certificate-authority-not-hold-keys",
                %file, %why, error,
                "the file of the certificate authority does not hold the keys that this control plane signs with, and cannot be \
                 written; the next start would fail. It has them in memory: quilt-mesh-control ca export --file FILE, before it \
                 stops"
            ),
            None if matches!(fault, Fault::OpenToOthers(_)) => {
                error!(name: "file-certificate-authority-not-owner",
                    %file, %why,
                    "the file of the certificate authority is not its owner's alone; the next start would fail"
                )
            }
            None => error!(name: "file-certificate-authority-not-hold-keys-control",
                %file, %why,
                "the file of the certificate authority does not hold the keys that this control plane signs with, and is left \
                 as it is; the next start would fail. It has them in memory: quilt-mesh-control ca export --file FILE, before it \
                 stops. It writes the file again when this one is moved away"
            ),
        }
        self.said = said;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use mesh_credentials::authority::Authority;
    use mesh_credentials::name::MeshId;

    use super::*;

    fn authority() -> Authority {
        Authority::make(MeshId::make(), 1_800_000_000).unwrap()
    }

    #[test]
    fn a_file_is_written_again_only_where_no_key_is_lost_by_it_and_only_at_the_second_look() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("authority.key.pem");
        let (ours, next, other) = (authority(), authority(), authority());
        let [first, both, others] = [
            ours.pem(),
            format!("{}{}", ours.pem(), next.pem()),
            format!("{}{}", ours.pem(), other.pem()),
        ];
        let certificate = ours.trusted().pem();
        let authorities = Authorities::default();
        authorities.have(&file, vec![ours.into(), next.into()]);
        let cut = &both[..both.len() - 40];
        for (text, is_right, is_written) in [
            (None, false, true),
            (Some(""), false, true),
            (Some(certificate.as_str()), false, true),
            (Some(first.as_str()), false, true),
            (Some(both.as_str()), true, false),
            (Some(others.as_str()), false, false),
            (Some(cut), false, false),
        ] {
            let _ = fs::remove_file(&file);
            if let Some(text) = text {
                secret_file::create(&file, text).unwrap();
            }
            let found = look(&authorities, None).unwrap();
            assert_eq!(found.fault.is_none(), is_right, "{text:?}");
            assert_eq!(found.written, None, "{text:?}");
            let again = look(&authorities, found.fault.as_ref()).unwrap();
            assert_eq!(again.written, is_written.then_some(Ok(())), "{text:?}");
            let now = fs::read_to_string(&file).unwrap();
            let expected = if is_written {
                both.as_str()
            } else {
                text.unwrap()
            };
            assert_eq!(now, expected);
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_left_alone_and_one_that_none_should_have_is_not_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("authority.key.pem");
        let authorities = Authorities::default();
        assert_eq!(look(&authorities, None), None);
        authorities.have(&file, Vec::new());
        assert_eq!(look(&authorities, None), None);
        let ours = authority();
        fs::write(&file, ours.pem()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        authorities.have(&file, vec![ours.into()]);
        let found = look(&authorities, None).unwrap();
        assert!(
            matches!(found.fault, Some(Fault::OpenToOthers(_))),
            "{found:?}"
        );
        let again = look(&authorities, found.fault.as_ref()).unwrap();
        assert_eq!(again.written, None);
    }
}
