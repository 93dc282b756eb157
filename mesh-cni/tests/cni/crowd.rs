//! Many at once.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use mesh_testbed::{Cni, CniAttachment, NetNs};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::{
    engine::{address, alone, engine},
    mesh::{five_of_five, leases, mesh_of, namespace},
    remains::Remains,
};

const CONTAINERS: usize = 200;

const AT_ONCE: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_containers_that_come_and_go_sixteen_at_a_time_leave_nothing_behind() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    let mut places = Vec::new();
    for number in 0..CONTAINERS {
        places.push(namespace(&format!("c{number}")).await);
    }
    let list = alone(host);
    let added = all(&engine, &list, &places, async |engine, list, attachment| {
        Some(engine.add(list, attachment).await.unwrap())
    })
    .await;
    let addresses: BTreeSet<_> = added.iter().map(|result| address(result, 0)).collect();
    assert_eq!(addresses.len(), CONTAINERS);
    assert_eq!(leases(host).await.len(), CONTAINERS);
    assert_eq!(host.status().await.unwrap().problems(), [""; 0]);
    five_of_five(&places[0], *addresses.last().unwrap()).await;
    five_of_five(&places[CONTAINERS - 1], *addresses.first().unwrap()).await;

    all(&engine, &list, &places, async |engine, list, attachment| {
        engine.del(list, attachment).await.unwrap();
        None
    })
    .await;
    before.wait_again(host).await;
}

/// Calls for all of them, some at a time, says how long one took, and returns what they answered.
async fn all<F>(engine: &Cni, list: &Value, places: &[NetNs], call: F) -> Vec<Value>
where
    F: AsyncFn(&Cni, &Value, &CniAttachment) -> Option<Value>,
{
    let turns = Semaphore::new(AT_ONCE);
    let calls = places.iter().enumerate().map(|(number, netns)| {
        let (turns, call) = (&turns, &call);
        async move {
            let _turn = turns.acquire().await.unwrap();
            let attachment = CniAttachment::new(&format!("c{number}"), netns);
            let started = Instant::now();
            (call(engine, list, &attachment).await, started.elapsed())
        }
    });
    let mut took = Vec::new();
    let mut answers = Vec::new();
    for (answer, time) in futures_util::future::join_all(calls).await {
        answers.extend(answer);
        took.push(time);
    }
    took.sort();
    let median: Duration = took[took.len() / 2];
    println!(
        "{} calls, {AT_ONCE} at a time: {median:?} in the middle",
        took.len()
    );
    answers
}
