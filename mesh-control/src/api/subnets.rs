//! The operators' calls: list, release, reserve and unreserve subnets.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use ipnet::Ipv4Net;
use mesh_rest::problem::FieldError;
use mesh_rest::release::{
    AllReleased, LONGEST_LEFT_FOR_SECONDS, Release, ReleaseDeparted, Released,
};
use mesh_rest::reservation::{LONGEST_REASON, Reserve, Unreserve};
use mesh_rest::subnets::{SubnetEntry, SubnetList, SubnetState};
use serde_json::Value;

use crate::api::asker::Asker;
use crate::api::openapi::{
    WhenReading, WhenReleasing, WhenReleasingDeparted, WhenReserving, WhenUnreserving,
};
use crate::api::problem::Problem;
use crate::cluster::next_subnet::Range;
use crate::cluster::subnet_plan::{SubnetIndex, SubnetPlan, parse_cidr};
use crate::http::{answer, body};
use crate::registry::{ChangeError, Registry, unix_seconds};
use crate::store::{Reservation, Tenant};

/// Leases and reservations
#[utoipa::path(get, path = "/api/subnets", tag = "subnets", operation_id = "subnets",
    responses((status = 200, body = SubnetList), WhenReading))]
pub(super) async fn list(State(registry): State<Arc<Registry>>) -> Result<Response, Problem> {
    let _place = body::within_deadline(answer::stream()).await?;
    let stored = body::within_deadline(registry.subnets()).await?;
    let stored = stored.map_err(|error| Problem::from(&error))?;
    let _turn = body::within_deadline(answer::turn()).await?;
    let plan = registry.plan();
    let leased = stored.leases.iter().filter(|lease| lease.node.is_some());
    let leased = u32::try_from(leased.count()).unwrap_or(u32::MAX);
    let reserved = stored
        .reservations
        .iter()
        .map(|reservation| reservation.range.count())
        .sum();
    let mut entries: Vec<(SubnetIndex, SubnetEntry)> = Vec::new();
    for lease in stored.leases {
        let Some(subnet) = plan.subnet(lease.subnet) else {
            continue;
        };
        let (node_id, hostname, status) = match lease.node {
            Some((node_id, hostname, status)) => (Some(node_id), Some(hostname), Some(status)),
            None => (None, None, None),
        };
        let state = match node_id {
            Some(_) => SubnetState::Leased,
            None => SubnetState::Released,
        };
        entries.push((
            lease.subnet,
            SubnetEntry {
                subnet: subnet.to_string(),
                state,
                node_id,
                hostname,
                status,
                leased_at: Some(lease.leased_at),
                reason: None,
            },
        ));
    }
    for reservation in stored.reservations {
        entries.push((
            reservation.range.first,
            SubnetEntry {
                subnet: reservation.cidr,
                state: SubnetState::Reserved,
                node_id: None,
                hostname: None,
                status: None,
                leased_at: None,
                reason: reservation.reason,
            },
        ));
    }
    entries.sort_by_key(|(first, _)| *first);
    let list = answer::serialise(&SubnetList {
        cluster: plan.cluster(),
        node_prefix: plan.node_prefix(),
        total: plan.count(),
        free: plan.count().saturating_sub(leased + reserved),
        leased,
        reserved,
        subnets: entries.into_iter().map(|(_, entry)| entry).collect(),
    })?;
    Ok(answer::json(answer::keep(list)))
}

/// End the lease of a node that does not come back
///
/// The node is removed. Should its agent come back, it registers as a new node. Repeating it is success.
#[utoipa::path(post, path = "/api/subnets/release", tag = "subnets", request_body = Release,
    responses((status = 200, body = Released), WhenReleasing))]
pub(super) async fn release(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<axum::Json<Released>, Problem> {
    let doer = Asker::of(&request).doer;
    let json = body::json(request).await?;
    let plan = *registry.plan();
    let subnet = cidr(&json, "subnet", &plan)?;
    let index = plan
        .index(subnet)
        .map_err(|rule| wrong("subnet", rule.to_string()))?;
    let released = body::within_deadline(registry.release(index, &doer.mandate)).await??;
    registry.note(doer.did("release", &subnet.to_string()));
    let (node_id, hostname) = released
        .map(|tenant| (tenant.node_id, tenant.hostname))
        .unzip();
    Ok(axum::Json(Released {
        subnet,
        node_id,
        hostname,
    }))
}

/// End the leases of all nodes that left for good
///
/// The nodes are removed. Should the agent of one come back, it registers as a new node. The body is an object, and
/// may be an empty one.
#[utoipa::path(post, path = "/api/subnets/release-departed", tag = "subnets", operation_id = "release_departed",
    request_body = ReleaseDeparted, responses((status = 200, body = AllReleased), WhenReleasingDeparted))]
pub(super) async fn release_departed(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<axum::Json<AllReleased>, Problem> {
    let doer = Asker::of(&request).doer;
    let json = body::json(request).await?;
    let before = unix_seconds().saturating_sub(left_for_seconds(&json)?);
    let mut released = Vec::new();
    body::within_deadline(async {
        loop {
            // Who left in this second has left.
            let tenants = registry
                .release_departed(before.saturating_add(1), &doer.mandate)
                .await?;
            if tenants.is_empty() {
                return Ok::<_, ChangeError>(());
            }
            released.extend(tenants);
        }
    })
    .await??;
    let subject = format!("{} subnets", released.len());
    registry.note(doer.did("release departed", &subject));
    let entry = |tenant: Tenant| {
        let subnet = registry.plan().subnet(tenant.subnet)?;
        let (node_id, hostname) = (Some(tenant.node_id), Some(tenant.hostname));
        Some(Released {
            subnet,
            node_id,
            hostname,
        })
    };
    Ok(axum::Json(AllReleased {
        released: released.into_iter().filter_map(entry).collect(),
    }))
}

/// A whole number from 0 to ten years; absent is 0.
fn left_for_seconds(json: &Value) -> Result<i64, Problem> {
    check_object(json)?;
    match json.get("left_for_seconds") {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value
            .as_u64()
            .filter(|seconds| *seconds <= LONGEST_LEFT_FOR_SECONDS)
            .and_then(|seconds| i64::try_from(seconds).ok())
            .ok_or_else(|| {
                let rule = format!(
                    "left_for_seconds must be a whole number from 0 to {LONGEST_LEFT_FOR_SECONDS}"
                );
                wrong("left_for_seconds", rule)
            }),
    }
}

/// Keep a range from being handed out
///
/// Subnets in it that are leased have to be released first. Repeating it is success, also with another reason.
#[utoipa::path(post, path = "/api/subnets/reserve", tag = "subnets", request_body = Reserve,
    responses((status = 200, description = "Reserved; the body is empty"), WhenReserving))]
pub(super) async fn reserve(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let doer = Asker::of(&request).doer;
    let json = body::json(request).await?;
    let (cidr, range) = range(&json, registry.plan())?;
    let reason = reason(&json)?;
    let reservation = Reservation {
        range,
        cidr: cidr.to_string(),
        reason,
    };
    body::within_deadline(registry.reserve(reservation, &doer.mandate)).await??;
    registry.note(doer.did("reserve", &cidr.to_string()));
    Ok(StatusCode::OK)
}

/// Let a reserved range be handed out again
#[utoipa::path(post, path = "/api/subnets/unreserve", tag = "subnets", request_body = Unreserve,
    responses((status = 200, description = "No longer reserved; the body is empty"), WhenUnreserving))]
pub(super) async fn unreserve(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let doer = Asker::of(&request).doer;
    let json = body::json(request).await?;
    let (cidr, _) = range(&json, registry.plan())?;
    body::within_deadline(registry.unreserve(cidr.to_string(), &doer.mandate)).await??;
    registry.note(doer.did("unreserve", &cidr.to_string()));
    Ok(StatusCode::OK)
}

fn range(json: &Value, plan: &SubnetPlan) -> Result<(Ipv4Net, Range), Problem> {
    let cidr = cidr(json, "cidr", plan)?;
    let range = plan
        .range(cidr)
        .map_err(|rule| wrong("cidr", rule.to_string()))?;
    Ok((cidr, range))
}

fn check_object(json: &Value) -> Result<(), Problem> {
    if json.is_object() {
        return Ok(());
    }
    Err(Problem::invalid_fields(vec![FieldError {
        pointer: "#".to_owned(),
        detail: "the body must be a JSON object".to_owned(),
    }]))
}

fn cidr(json: &Value, field: &str, plan: &SubnetPlan) -> Result<Ipv4Net, Problem> {
    check_object(json)?;
    let text = json.get(field).and_then(Value::as_str).ok_or_else(|| {
        wrong(
            field,
            format!(
                "{field} is missing or no string; give a CIDR inside {}",
                plan.cluster()
            ),
        )
    })?;
    parse_cidr(text).map_err(|rule| wrong(field, rule.to_string()))
}

fn reason(json: &Value) -> Result<Option<String>, Problem> {
    let reason = match json.get("reason") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(reason)) => reason,
        Some(_) => return Err(wrong("reason", "reason must be a string".to_owned())),
    };
    if reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control) {
        let rule = format!(
            "reason must have at most {LONGEST_REASON} characters, none of them a control character"
        );
        return Err(wrong("reason", rule));
    }
    Ok(Some(reason.clone()))
}

fn wrong(field: &str, detail: String) -> Problem {
    Problem::invalid_fields(vec![FieldError {
        pointer: format!("#/{field}"),
        detail,
    }])
}
