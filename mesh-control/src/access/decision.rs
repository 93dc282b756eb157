//! Whether who asks may ask that.

use mesh_rest::operator::Role;
use mesh_rest::problem_kind::Kind;
use mesh_rest::security::Stage;

use super::Refused;
use super::caller::Caller;
use super::origin::Way;
use crate::api::access::{Needs, Rule};

/// What else it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// How the request came.
    pub way: Way,
    /// From this host, and not by way of a proxy on it.
    pub is_local: bool,
    /// From a loopback address, maybe a proxy's.
    pub is_loopback: bool,
    /// How far the cluster is secured.
    pub stage: Stage,
    /// Whether any node or operator ever had credentials.
    pub has_credentials: bool,
    /// `--insecure`.
    pub insecure: bool,
    /// Whether the node that the request acts for has credentials, also ones that were revoked. It counts for nobody alone.
    pub node_has_credentials: bool,
}

/// Whether plain HTTP is spoken with who asks.
///
/// # Errors
///
/// [`Kind::TlsRequired`].
pub fn judge_way(situation: &Situation) -> Result<(), Refused> {
    let is_taken = situation.way != Way::Plain
        || situation.is_loopback
        || situation.insecure
        || situation.stage != Stage::Secured;
    match is_taken {
        true => Ok(()),
        false => Err(Refused::new(
            Kind::TlsRequired,
            "plain HTTP is taken over loopback alone (127.0.0.1); use https:// and the same port, and let hosts join with a token \
             (quilt-mesh-control token create, quilt-mesh-agent --join)",
        )),
    }
}

/// Decides.
///
/// # Errors
///
/// [`Kind::Unauthorized`]: a credential is missing; [`Kind::CertificateExpired`]: it has to be renewed first;
/// [`Kind::Forbidden`]: it is another one that is needed.
pub fn decide(needs: &Needs, caller: &Caller, situation: &Situation) -> Result<(), Refused> {
    let rule = needs.rule();
    if rule == Some(Rule::Public) {
        return Ok(());
    }
    match caller {
        Caller::Admin => Ok(()),
        Caller::Operator { role, .. } => operator(rule, needs.node.is_some(), *role),
        Caller::Node(node_id) => node(rule, needs.node.as_deref(), node_id.as_str()),
        Caller::Renewing(_) if rule == Some(Rule::Renewal) => Ok(()),
        Caller::Renewing(_) => Err(Refused::new(
            Kind::CertificateExpired,
            "the certificate of this node has expired; renew it (POST /api/renew), which the agent does by itself",
        )),
        Caller::Nobody => nobody(rule, situation),
    }
}

fn operator(rule: Option<Rule>, acts_for_a_node: bool, role: Role) -> Result<(), Refused> {
    let reason = match rule {
        // What there is not is answered as such.
        None | Some(Rule::Public | Rule::Read) => return Ok(()),
        Some(Rule::NodeList) if !acts_for_a_node => return Ok(()),
        Some(Rule::OwnNodeOrOperate | Rule::Operate | Rule::Credentials)
            if role == Role::Operate =>
        {
            return Ok(());
        }
        Some(Rule::OwnNodeOrOperate | Rule::Operate | Rule::Credentials) => {
            "this operator may look, and change nothing"
        }
        Some(Rule::Admin) => {
            "this is done on the control plane's own host (quilt-mesh-control --help)"
        }
        Some(Rule::Renewal | Rule::Registration | Rule::OwnNode | Rule::NodeList) => {
            "only a node itself does this, with its certificate"
        }
    };
    Err(Refused::new(Kind::Forbidden, reason))
}

fn node(rule: Option<Rule>, acts_for: Option<&str>, node_id: &str) -> Result<(), Refused> {
    let is_own = acts_for == Some(node_id);
    let allowed = match rule {
        Some(Rule::Public | Rule::Renewal | Rule::Registration) => true,
        Some(Rule::OwnNode | Rule::OwnNodeOrOperate) => is_own,
        Some(Rule::NodeList) => acts_for.is_none() || is_own,
        None | Some(Rule::Read | Rule::Operate | Rule::Credentials | Rule::Admin) => false,
    };
    if allowed {
        return Ok(());
    }
    let reason = match acts_for {
        Some(_) => {
            format!("this certificate is that of the node {node_id}, which acts for itself alone")
        }
        None => "a node reads the node list, and nothing else".to_owned(),
    };
    Err(Refused::new(Kind::Forbidden, reason))
}

fn nobody(rule: Option<Rule>, situation: &Situation) -> Result<(), Refused> {
    let missing = |what: &str| Err(Refused::new(Kind::Unauthorized, what));
    let is_before = situation.stage != Stage::Secured;
    let is_free = !situation.has_credentials && (situation.is_local || situation.insecure);
    match rule {
        Some(Rule::Public) => Ok(()),
        // There were no such calls when nobody needed credentials, and who makes some shuts others out.
        Some(Rule::Credentials | Rule::Admin | Rule::Renewal) => missing(
            "this needs an operator's token (Authorization: Bearer …) or, for a renewal, the node's certificate; the first is \
             made on the control plane's host (quilt-mesh-control operator create)",
        ),
        Some(Rule::Registration | Rule::OwnNode | Rule::OwnNodeOrOperate | Rule::NodeList)
            if situation.node_has_credentials =>
        {
            missing("this node has joined with a token, and is known by its certificate alone")
        }
        Some(Rule::Operate) if situation.stage == Stage::Moving => {
            missing("this needs an operator's token (Authorization: Bearer …)")
        }
        _ if is_before || is_free => Ok(()),
        Some(Rule::Registration | Rule::OwnNode) => missing(
            "this needs the certificate of the node; let the host join with a token (quilt-mesh-control token create, \
             quilt-mesh-agent --join)",
        ),
        _ => missing(
            "this needs an operator's token (Authorization: Bearer …), or the certificate of a node where a node asks",
        ),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Uri};
    use mesh_rest::node_id::NodeId;
    use proptest::prelude::*;

    use super::*;
    use crate::api::access::TABLE;

    fn situation() -> impl Strategy<Value = Situation> {
        let way = prop_oneof![Just(Way::Plain), Just(Way::Tls)];
        let stage = prop_oneof![Just(Stage::Open), Just(Stage::Moving), Just(Stage::Secured)];
        (way, stage, any::<[bool; 5]>()).prop_map(|(way, stage, flags)| {
            let [is_loopback, is_direct, has_credentials, insecure, node] = flags;
            Situation {
                way,
                is_local: is_loopback && is_direct,
                is_loopback,
                stage,
                has_credentials,
                insecure,
                node_has_credentials: node && has_credentials,
            }
        })
    }

    fn needs() -> impl Strategy<Value = Needs> {
        let entries = (0..=TABLE.len()).prop_map(|at| TABLE.get(at));
        let node = prop_oneof![
            Just(None),
            Just(Some("a".to_owned())),
            Just(Some("b".to_owned()))
        ];
        (entries, node).prop_map(|(entry, node)| Needs { entry, node })
    }

    fn caller() -> impl Strategy<Value = Caller> {
        let operator = |role| Caller::Operator {
            id: "1".to_owned(),
            name: "Ada".to_owned(),
            role,
        };
        let node = || NodeId::from("a".to_owned());
        prop_oneof![
            Just(Caller::Nobody),
            Just(Caller::Node(node())),
            Just(Caller::Renewing(node())),
            Just(operator(Role::Read)),
            Just(operator(Role::Operate)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn nothing_but_what_is_public_is_open_to_nobody_in_a_secured_cluster(
            needs in needs(), mut situation in situation()
        ) {
            situation.stage = Stage::Secured;
            let is_free = !situation.has_credentials && (situation.is_local || situation.insecure);
            if !is_free && needs.rule() != Some(Rule::Public) {
                prop_assert!(decide(&needs, &Caller::Nobody, &situation).is_err());
            }
        }

        #[test]
        fn a_node_never_acts_for_another_nor_changes_what_an_operator_does(
            needs in needs(), situation in situation()
        ) {
            let node = Caller::Node(NodeId::from("a".to_owned()));
            let public = needs.rule() == Some(Rule::Public);
            if decide(&needs, &node, &situation).is_ok() && !public {
                let acts_for = needs.node.as_deref();
                let rule = needs.rule().unwrap();
                let of_nodes = [Rule::Renewal, Rule::Registration, Rule::OwnNode, Rule::OwnNodeOrOperate, Rule::NodeList];
                prop_assert!(of_nodes.contains(&rule));
                let names_none = [Rule::Renewal, Rule::Registration, Rule::NodeList].contains(&rule);
                prop_assert!(acts_for == Some("a") || names_none);
                if rule == Rule::NodeList {
                    prop_assert!(acts_for.is_none_or(|node| node == "a"));
                }
            }
        }

        #[test]
        fn who_may_look_may_nothing_that_changes_anything(needs in needs(), situation in situation()) {
            let reader = Caller::Operator { id: String::new(), name: String::new(), role: Role::Read };
            if decide(&needs, &reader, &situation).is_ok() {
                let changes = needs.entry.is_some_and(|entry| entry.method != "GET" && entry.rule != Rule::Public);
                prop_assert!(!changes);
                prop_assert!(needs.node.is_none() || needs.rule() != Some(Rule::NodeList));
            }
        }

        #[test]
        fn credentials_are_made_by_those_who_have_some(needs in needs(), caller in caller(), situation in situation()) {
            let rule = needs.rule();
            if rule == Some(Rule::Admin) {
                prop_assert!(decide(&needs, &caller, &situation).is_err());
            }
            if rule == Some(Rule::Credentials) && decide(&needs, &caller, &situation).is_ok() {
                let operates = matches!(caller, Caller::Operator { role: Role::Operate, .. });
                prop_assert!(operates);
            }
        }

        #[test]
        fn whoever_acts_for_a_node_with_credentials_needs_them_at_every_stage(
            needs in needs(), mut situation in situation()
        ) {
            situation.has_credentials = true;
            situation.node_has_credentials = true;
            let acts = [Rule::OwnNode, Rule::OwnNodeOrOperate].map(Some).contains(&needs.rule());
            if acts {
                let refused = decide(&needs, &Caller::Nobody, &situation).unwrap_err();
                prop_assert_eq!(refused.kind, Kind::Unauthorized);
            }
        }

        /// It is looked up for nobody alone.
        #[test]
        fn whether_a_node_has_credentials_makes_a_difference_for_nobody_alone(
            needs in needs(), caller in caller(), situation in situation()
        ) {
            let with = |node_has_credentials| {
                let situation = Situation { node_has_credentials, ..situation };
                decide(&needs, &caller, &situation)
            };
            if caller != Caller::Nobody {
                prop_assert_eq!(with(false), with(true));
            }
        }

        #[test]
        fn the_admin_socket_may_everything(needs in needs(), situation in situation()) {
            prop_assert!(decide(&needs, &Caller::Admin, &situation).is_ok());
        }

        #[test]
        fn plain_http_beyond_this_host_is_taken_where_something_is_open_alone(situation in situation()) {
            let taken = judge_way(&situation).is_ok();
            let open = situation.insecure || situation.stage != Stage::Secured;
            prop_assert_eq!(taken, situation.way == Way::Tls || situation.is_loopback || open);
        }
    }

    #[test]
    fn a_cluster_from_before_goes_on_and_one_that_moves_takes_no_changes_of_operators() {
        let mut situation = Situation {
            way: Way::Plain,
            is_local: false,
            is_loopback: false,
            stage: Stage::Open,
            has_credentials: true,
            insecure: false,
            node_has_credentials: false,
        };
        let ask = |method: &Method, path: &'static str, situation: &Situation| {
            let needs = Needs::of(method, &Uri::from_static(path));
            decide(&needs, &Caller::Nobody, situation).map_err(|refused| refused.kind)
        };
        let calls = [
            (Method::POST, "/api/nodes/register", true),
            (Method::POST, "/api/nodes/a/heartbeat", true),
            (Method::POST, "/api/nodes/a/leave", true),
            (Method::POST, "/api/nodes/a/deregister", true),
            (Method::GET, "/api/nodes?since=1&node=a", true),
            (Method::GET, "/api/traffic", true),
            (Method::GET, "/nowhere", true),
            (Method::POST, "/api/subnets/release", false),
            (Method::POST, "/api/subnets/reserve", false),
        ];
        for (method, path, also_moving) in calls {
            situation.stage = Stage::Open;
            assert_eq!(ask(&method, path, &situation), Ok(()), "{path}");
            situation.stage = Stage::Moving;
            assert_eq!(
                ask(&method, path, &situation).is_ok(),
                also_moving,
                "{path}"
            );
            situation.stage = Stage::Secured;
            assert_eq!(
                ask(&method, path, &situation),
                Err(Kind::Unauthorized),
                "{path}"
            );
        }
    }
}
