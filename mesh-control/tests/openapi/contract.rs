//! The description against the contract that other software relies on. Calls, fields and answers are
//! added here when they are added to the API; a line is never changed or taken away.

use serde_json::{Map, Value};

/// A call of the contract.
struct Call {
    method: &'static str,
    path: &'static str,
    /// Query parameters.
    parameters: &'static [&'static str],
    /// Fields of the body that a request has to have, and those that it may have.
    sends: (&'static [&'static str], &'static [&'static str]),
    /// Paths to the fields of the answer, a dot between names; in arrays of each element.
    answers: &'static [&'static str],
    /// Statuses that it may answer.
    statuses: &'static [&'static str],
}

const CONTRACT: &[Call] = &[
    Call {
        method: "get",
        path: "/health",
        parameters: &[],
        sends: (&[], &[]),
        answers: &["status"],
        statuses: &["200"],
    },
    Call {
        method: "get",
        path: "/livez",
        parameters: &[],
        sends: (&[], &[]),
        answers: &["status"],
        statuses: &["200"],
    },
    Call {
        method: "get",
        path: "/readyz",
        parameters: &[],
        sends: (&[], &[]),
        answers: &["status"],
        statuses: &["200", "503"],
    },
    Call {
        method: "post",
        path: "/api/nodes/register",
        parameters: &[],
        sends: (
            &["hostname", "host_ip"],
            &["cpu_cores", "ram_mb", "node_key", "subnet"],
        ),
        answers: &["node_id", "subnet"],
        statuses: &["200", "400", "408", "409", "413", "415", "422", "503"],
    },
    Call {
        method: "get",
        path: "/api/nodes",
        parameters: &["since", "wait", "database", "node"],
        sends: (&[], &[]),
        answers: &[
            "revision",
            "database",
            "digest",
            "proof",
            "full",
            "removed",
            "nodes.node_id",
            "nodes.hostname",
            "nodes.host_ip",
            "nodes.subnet",
            "nodes.cpu_cores",
            "nodes.ram_mb",
            "nodes.status",
            "nodes.deregistered",
            "nodes.left",
            "nodes.registered_at",
            "nodes.last_heartbeat",
            "nodes.etag",
        ],
        statuses: &["200", "400", "404", "409"],
    },
    Call {
        method: "post",
        path: "/api/nodes/{id}/heartbeat",
        parameters: &[],
        sends: (&[], &["data_plane", "peers"]),
        answers: &[],
        statuses: &["200", "400", "404", "408", "413", "422"],
    },
    Call {
        method: "post",
        path: "/api/nodes/{id}/deregister",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[],
        statuses: &["200", "404", "503"],
    },
    Call {
        method: "post",
        path: "/api/nodes/{id}/leave",
        parameters: &[],
        sends: (&["node_key"], &[]),
        answers: &[],
        statuses: &["200", "400", "403", "404", "415", "422", "503"],
    },
    Call {
        method: "get",
        path: "/api/traffic",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[
            "nodes.node_id",
            "nodes.hostname",
            "nodes.subnet",
            "nodes.reported_at",
            "nodes.report_age_ms",
            "nodes.data_plane",
            "flows.from",
            "flows.to",
            "flows.from_subnet",
            "flows.to_subnet",
            "flows.tx_packets",
            "flows.tx_bytes",
            "flows.rx_packets",
            "flows.rx_bytes",
            "flows.kernel_tx_packets",
            "flows.kernel_tx_bytes",
            "flows.kernel_rx_packets",
            "flows.kernel_rx_bytes",
            "flows.dropped_packets",
            "flows.last_packet_age_ms",
            "flows.suspect",
            "flows_left_out",
        ],
        statuses: &["200", "503"],
    },
    Call {
        method: "post",
        path: "/api/checks",
        parameters: &[],
        sends: (&[], &[]),
        answers: &["id"],
        statuses: &["200", "429", "503"],
    },
    Call {
        method: "get",
        path: "/api/checks/{id}",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[
            "id",
            "age_ms",
            "open",
            "nodes.node_id",
            "nodes.hostname",
            "nodes.host_ip",
            "nodes.subnet",
            "nodes.answer",
        ],
        statuses: &["200", "404"],
    },
    Call {
        method: "get",
        path: "/api/findings",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[
            "findings.code",
            "findings.severity",
            "findings.title",
            "findings.observed",
            "findings.breaks",
            "findings.remedy",
            "findings.since",
            "nodes.node_id",
            "nodes.hostname",
            "nodes.report_age_ms",
            "nodes.findings",
            "nodes_left_out",
        ],
        statuses: &["200", "503"],
    },
    Call {
        method: "get",
        path: "/api/subnets",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[
            "cluster",
            "node_prefix",
            "total",
            "free",
            "leased",
            "reserved",
            "subnets.subnet",
            "subnets.state",
        ],
        statuses: &["200", "503"],
    },
    Call {
        method: "post",
        path: "/api/subnets/release",
        parameters: &[],
        sends: (&["subnet"], &[]),
        answers: &["subnet", "node_id", "hostname"],
        statuses: &["200", "400", "404", "409", "415", "422", "503"],
    },
    Call {
        method: "post",
        path: "/api/subnets/release-departed",
        parameters: &[],
        sends: (&[], &["left_for_seconds"]),
        answers: &["released.subnet", "released.node_id", "released.hostname"],
        statuses: &["200", "400", "415", "422", "503"],
    },
    Call {
        method: "post",
        path: "/api/subnets/reserve",
        parameters: &[],
        sends: (&["cidr"], &["reason"]),
        answers: &[],
        statuses: &["200", "400", "409", "415", "422", "503"],
    },
    Call {
        method: "post",
        path: "/api/subnets/unreserve",
        parameters: &[],
        sends: (&["cidr"], &[]),
        answers: &[],
        statuses: &["200", "400", "404", "415", "422", "503"],
    },
    Call {
        method: "get",
        path: "/api/openapi.json",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[],
        statuses: &["200"],
    },
    Call {
        method: "get",
        path: "/api/docs",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[],
        statuses: &["308"],
    },
    Call {
        method: "post",
        path: "/api/join",
        parameters: &[],
        sends: (&["token", "request"], &["node_key"]),
        answers: &[
            "node_id",
            "mesh_id",
            "certificate",
            "authorities",
            "authorities_digest",
            "time",
        ],
        statuses: &["200", "400", "403", "415", "422", "503"],
    },
    Call {
        method: "post",
        path: "/api/renew",
        parameters: &[],
        sends: (&["request"], &[]),
        answers: &[
            "node_id",
            "mesh_id",
            "certificate",
            "authorities",
            "authorities_digest",
            "time",
        ],
        statuses: &["200", "400", "401", "415", "422", "503"],
    },
    Call {
        method: "get",
        path: "/api/ca",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[
            "mesh_id",
            "authorities.certificate",
            "authorities.key",
            "authorities.signs",
            "authorities.not_after",
        ],
        statuses: &["200", "503"],
    },
    Call {
        method: "post",
        path: "/api/ca/rotate",
        parameters: &[],
        sends: (&["step"], &["force"]),
        answers: &[],
        statuses: &["200", "400", "409", "415", "422", "503"],
    },
    Call {
        method: "post",
        path: "/api/ca/export",
        parameters: &[],
        sends: (&[], &[]),
        answers: &["keys"],
        statuses: &["200", "503"],
    },
    Call {
        method: "post",
        path: "/api/ca/import",
        parameters: &[],
        sends: (&["keys"], &[]),
        answers: &[],
        statuses: &["200", "400", "403", "415", "422", "503"],
    },
    Call {
        method: "post",
        path: "/api/tokens",
        parameters: &[],
        sends: (&[], &["uses", "ttl_seconds", "node", "force"]),
        answers: &["id", "token", "expires_at"],
        statuses: &["200", "400", "409", "415", "422", "503"],
    },
    Call {
        method: "get",
        path: "/api/tokens",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[
            "tokens.id",
            "tokens.uses_left",
            "tokens.uses",
            "tokens.expires_at",
            "tokens.created_at",
            "tokens.created_by",
        ],
        statuses: &["200"],
    },
    Call {
        method: "post",
        path: "/api/tokens/{id}/revoke",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[],
        statuses: &["200", "400", "404", "503"],
    },
    Call {
        method: "post",
        path: "/api/operators",
        parameters: &[],
        sends: (&["name", "role"], &["force"]),
        answers: &["id", "token"],
        statuses: &["200", "400", "409", "415", "422", "503"],
    },
    Call {
        method: "get",
        path: "/api/operators",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[
            "operators.id",
            "operators.name",
            "operators.role",
            "operators.created_at",
        ],
        statuses: &["200"],
    },
    Call {
        method: "post",
        path: "/api/operators/{id}/revoke",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[],
        statuses: &["200", "400", "404", "503"],
    },
    Call {
        method: "post",
        path: "/api/nodes/{id}/revoke",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[],
        statuses: &["200", "400", "404", "503"],
    },
    Call {
        method: "get",
        path: "/api/node-credentials",
        parameters: &[],
        sends: (&[], &[]),
        answers: &["nodes.node_id", "nodes.state", "nodes.credential"],
        statuses: &["200"],
    },
    Call {
        method: "get",
        path: "/api/security",
        parameters: &[],
        sends: (&[], &[]),
        answers: &[
            "stage",
            "has_credentials",
            "nodes_with_credentials",
            "nodes_without_credentials",
            "nodes_without_credentials_count",
            "nodes_up_without_credentials",
            "nodes_up_without_credentials_count",
        ],
        statuses: &["200", "503"],
    },
    Call {
        method: "post",
        path: "/api/security/stage",
        parameters: &[],
        sends: (&["stage"], &["force"]),
        answers: &[],
        statuses: &["200", "400", "409", "415", "422", "503"],
    },
    Call {
        method: "get",
        path: "/api/audit",
        parameters: &["before", "most"],
        sends: (&[], &[]),
        answers: &[
            "entries.at",
            "entries.who",
            "entries.source",
            "entries.action",
            "entries.subject",
            "entries.outcome",
            "entries.times",
        ],
        statuses: &["200", "503"],
    },
];

/// The description, with its references followed.
struct Description(Value);

impl Description {
    fn new() -> Self {
        Self(serde_json::to_value(mesh_control::api::openapi::document()).unwrap())
    }

    fn follow<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.trim_start_matches('#');
                self.follow(self.0.pointer(pointer).expect(reference))
            }
            None => value,
        }
    }

    /// The structures that a schema is made of, or may be.
    fn parts<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.follow(schema);
        let mut parts = vec![schema];
        for combined in ["allOf", "oneOf", "anyOf"] {
            let members = schema[combined].as_array();
            parts.extend(
                members
                    .into_iter()
                    .flatten()
                    .flat_map(|member| self.parts(member)),
            );
        }
        parts
    }

    fn has_property(&self, schema: &Value, name: &str) -> bool {
        self.property(schema, name).is_some()
    }

    fn property<'a>(&'a self, schema: &'a Value, name: &str) -> Option<&'a Value> {
        let parts = self.parts(schema).into_iter();
        parts.filter_map(|part| part["properties"].get(name)).next()
    }

    fn requires(&self, schema: &Value, name: &str) -> bool {
        self.parts(schema)
            .iter()
            .filter_map(|part| part["required"].as_array())
            .any(|required| required.iter().any(|field| field == name))
    }

    /// The field is there at the end of a path, and always is.
    fn promises(&self, schema: &Value, path: &str) -> bool {
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        let Some(property) = self.property(schema, name) else {
            return false;
        };
        let property = match self.follow(property) {
            array if array["type"] == "array" => &array["items"],
            _ => property,
        };
        self.requires(schema, name) && (rest.is_empty() || self.promises(property, rest))
    }

    /// What of a call is missing.
    fn lacks(&self, call: &Call) -> Vec<String> {
        let operation = &self.0["paths"][call.path][call.method];
        if operation.is_null() {
            return vec!["the call".to_owned()];
        }
        let mut lacks = Vec::new();
        for name in call.parameters {
            let parameters = operation["parameters"].as_array();
            let known = parameters
                .into_iter()
                .flatten()
                .any(|known| known["name"] == *name && known["in"] == "query");
            if !known {
                lacks.push(format!("the parameter {name}"));
            }
        }
        let sent = &operation["requestBody"]["content"]["application/json"]["schema"];
        let (required, optional) = call.sends;
        for field in required {
            if !self.has_property(sent, field) || !self.requires(sent, field) {
                lacks.push(format!("the required field {field} of the request"));
            }
        }
        for field in optional {
            if !self.has_property(sent, field) || self.requires(sent, field) {
                lacks.push(format!("the optional field {field} of the request"));
            }
        }
        let answer = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        for path in call.answers {
            if !self.promises(answer, path) {
                lacks.push(format!("the field {path} of the answer"));
            }
        }
        for status in call.statuses {
            if operation["responses"].get(status).is_none() {
                lacks.push(format!("the status {status}"));
            }
        }
        lacks
    }
}

#[test]
fn every_call_field_and_status_of_the_contract_is_described() {
    let description = Description::new();
    let lacks: Vec<String> = CONTRACT
        .iter()
        .flat_map(|call| {
            let lacks = description.lacks(call).into_iter();
            lacks.map(move |what| format!("{} {} lacks {what}", call.method, call.path))
        })
        .collect();
    assert!(lacks.is_empty(), "{}", lacks.join("\n"));
}

#[test]
fn every_call_that_is_described_is_in_the_contract() {
    let description = Description::new();
    let paths = description.0["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let known = CONTRACT
                .iter()
                .any(|call| call.path == path && call.method == method);
            assert!(known, "{method} {path} is not in the contract");
        }
    }
}

#[test]
fn every_error_that_is_described_is_a_problem_document() {
    let description = Description::new();
    let mut seen = 0;
    for (path, methods) in description.0["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                if status.starts_with('4') || status.starts_with('5') {
                    let types: Vec<&String> =
                        response["content"].as_object().unwrap().keys().collect();
                    assert_eq!(types, ["application/problem+json"], "{path} {status}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

/// Takes a name out of every `properties`, as if the field had been removed or renamed.
fn without_field(value: &mut Value, name: &str) {
    match value {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get_mut("properties") {
                properties.remove(name);
            }
            members
                .values_mut()
                .for_each(|member| without_field(member, name));
        }
        Value::Array(elements) => {
            elements
                .iter_mut()
                .for_each(|element| without_field(element, name));
        }
        _ => {}
    }
}

#[test]
fn a_field_or_call_or_status_that_went_away_is_noticed() {
    let lacking = |change: &dyn Fn(&mut Value)| {
        let mut description = Description::new();
        change(&mut description.0);
        let lacks = CONTRACT.iter().flat_map(|call| description.lacks(call));
        lacks.count()
    };
    assert_eq!(lacking(&|_| {}), 0);
    for call in CONTRACT {
        let (required, optional) = call.sends;
        let last = call
            .answers
            .iter()
            .filter_map(|path| path.split('.').next_back());
        for field in required.iter().chain(optional).copied().chain(last) {
            assert!(lacking(&|value| without_field(value, field)) > 0, "{field}");
        }
        for status in call.statuses {
            let gone = |value: &mut Value| {
                let operation = &mut value["paths"][call.path][call.method];
                let responses = operation["responses"].as_object_mut();
                responses.unwrap_or(&mut Map::new()).remove(*status);
            };
            assert!(lacking(&gone) > 0, "{} {status}", call.path);
        }
        let gone = |value: &mut Value| {
            value["paths"].as_object_mut().unwrap().remove(call.path);
        };
        assert!(lacking(&gone) > 0, "{}", call.path);
    }
}
