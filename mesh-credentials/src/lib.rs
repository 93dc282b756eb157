//! By what nodes, operators and the control plane know each other.
//!
//! A mesh has a certificate authority of its own ([`authority`]). A host that brings a [`join_token`] gets a certificate
//! for a key that it made itself ([`node_key_pair`]); the token says by which key it knows the right control plane. From
//! then on both sides show certificates, whose names ([`name`]) say who they are and in which mesh, and are checked by
//! [`control_plane_check`] and [`node_check`]. People have an [`operator_token`]. Where there is an authority of one's own,
//! nodes may show [`own_certificate`]s instead.
//!
//! Keys are ECDSA on P-256, certificates X.509 (RFC 5280), and nothing but TLS 1.3 is spoken, which has no renegotiation.
//! Times are Unix seconds.

pub mod authority;
pub mod authority_file;
pub mod authority_state;
pub mod certificate;
mod chain;
pub mod control_plane_check;
pub mod handshake_signature;
pub mod join_token;
pub mod key_digest;
pub mod name;
pub mod node_check;
pub mod node_key_pair;
pub mod operator_token;
pub mod own_certificate;
pub mod secret;
pub mod secret_file;
pub mod tls;
pub mod tls_files;
pub mod trust;
