//! Credentials: who may join, as whom a node is known, and who may ask.
//!
//! | module | what it is |
//! |---|---|
//! | `memory` | what is stored, in memory, as every request needs it |
//! | `authorities` | the mesh's certificate authorities: their keys in a file, their certificates in the database |
//! | `authorities_error` | why there is none that signs, and what to do |
//! | `filed_states` | what the authorities in that file do, where no database says it |
//! | `key_file` | the name of the file of the keys, and what becomes of one that is in the way |
//! | `key_file_watch` | it, looked after while a control plane runs |
//! | `lost_database` | what is put back into a database that lost it while a control plane runs |
//! | `signer_of_before` | the authority that signs, put back into a database that went back to before it |
//! | `mark` | what a host remembers although the database is lost |
//! | `credit` | nodes that show a certificate which the database does not know |
//! | `rotation` | how one authority takes the place of another |
//! | `replaced_authority` | a new authority in the place of one whose key is lost |
//! | `nodes` | nodes with their credentials: listed, revoked |
//! | `join` | which node a host becomes that brings a token, and the certificate that it gets |
//! | `issued` | how often one key is given a certificate |
//! | `tokens`, `operators` | what lets hosts join, and people ask |
//! | `reading` | it is read, all of it or what changed |
//! | `committed` | a change of them, in the database and then in memory, whatever becomes of who asked for it |
//! | `judged` | it, as requests are judged by it |
//! | `shown` | the certificate that is shown to others |
//! | `stage` | how far a cluster is secured |
//! | `audit` | who did what, from where |

pub mod audit;
pub mod authorities;
pub mod authorities_error;
mod committed;
mod credit;
mod filed_states;
pub(crate) mod issued;
pub mod join;
mod judged;
pub(crate) mod key_file;
pub(crate) mod key_file_watch;
mod lost_database;
pub(crate) mod mark;
pub mod memory;
pub mod nodes;
pub mod operators;
mod reading;
pub mod refusal;
mod replaced_authority;
mod rotation;
pub mod shown;
pub(crate) mod signer_of_before;
pub mod stage;
pub mod tokens;

/// A short random id, by which people name a token or an operator: 40 bits, as ten characters.
fn short_id() -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    random.chars().take(10).collect()
}
