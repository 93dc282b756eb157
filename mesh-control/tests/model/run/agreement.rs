//! What is seen once a step is over, held against what is known.

use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use super::{Outcome, PATIENCE, Run};
use crate::answer::Answer;
use crate::list::NodeList;
use crate::order::View;
use crate::steps::SUBNETS;

impl Run<'_> {
    /// Everything that can be seen once a step is over.
    pub(super) async fn look_around(&mut self) {
        self.settle().await;
        self.look().await;
        self.handed_out_in_order().await;
        self.step = Outcome::default();
    }

    /// Every replica's list agrees with the model: at once where there is one, soon where there are
    /// several. What contradicts the model is a panic in either case.
    async fn look(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for replica in 0..self.cluster.count() {
            let api = self.cluster.addresses().replica(replica);
            let list = loop {
                let disagreement = match NodeList::fetch(&api).await {
                    Some(list) => {
                        let last = std::mem::replace(&mut self.revisions[replica], list.revision);
                        assert!(
                            last <= list.revision,
                            "the revision went from {last} to {}",
                            list.revision
                        );
                        match self.model.compare(&list.listed()) {
                            Ok(()) => break list,
                            Err(disagreement) => disagreement,
                        }
                    }
                    // The database server has just been started.
                    None if self.database.is_some() => "no list".to_owned(),
                    None => panic!("the control plane does not list its nodes"),
                };
                assert!(!self.prompt(), "{disagreement}\n{:#?}", self.model);
                assert!(
                    Instant::now() < deadline,
                    "replica {replica}: {disagreement}\n{:#?}",
                    self.model
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            self.model.learn(&list.listed());
        }
    }

    /// Waits until it is decided what became of what got no answer. A server may still work on what a client asked
    /// that is gone: on a change that has the lock by now, or on none.
    async fn settle(&self) {
        let Some((database, url)) = self.database.filter(|_| self.step.unsettled) else {
            return;
        };
        let turn = "UPDATE cluster SET revision = revision WHERE id = 1";
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = database.execute(url, turn) {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What was leased in this step is what is next in order.
    async fn handed_out_in_order(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let view = loop {
            let api = self.cluster.addresses().replica(0);
            let answer = Answer::to(api.request(reqwest::Method::GET, "/api/subnets")).await;
            // The database server has just been started.
            if answer.status == 503 && self.database.is_some() && Instant::now() < deadline {
                continue;
            }
            assert_eq!(answer.status, 200, "{}", answer.body);
            break View::read(&answer.body);
        };
        let Outcome {
            claimed, exhausted, ..
        } = self.step;
        self.order.advance(view, claimed, exhausted);
    }

    /// When nothing changes any more, clients of the feed have what the full list shows.
    pub(super) async fn followers_agree(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for (at, follower) in self.followers.iter_mut().enumerate() {
            loop {
                follower.check().await;
                let full = NodeList::fetch(&self.cluster.addresses().replica(at)).await;
                let followed = follower.list();
                if full.as_ref() == Some(&followed) {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "the feed left {followed:#?}, the list is {full:#?}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// The operator's view adds up, and shows the leases of the list.
    pub(super) async fn subnets_agree(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let api = self.cluster.addresses().replica(0);
            let listed = NodeList::fetch(&api).await;
            let view = Answer::to(api.request(reqwest::Method::GET, "/api/subnets"))
                .await
                .body;
            let leased = || {
                let rows = view["subnets"].as_array()?.iter();
                let mut leased: Vec<Ipv4Net> = rows
                    .filter(|row| row["state"] == "leased")
                    .map(|row| row["subnet"].as_str().unwrap().parse().unwrap())
                    .collect();
                leased.sort();
                Some(leased)
            };
            let held = listed.map(|list| {
                let mut held: Vec<Ipv4Net> =
                    list.listed().values().map(|node| node.subnet).collect();
                held.sort();
                held
            });
            let count = |member: &str| view[member].as_u64().unwrap();
            if held.is_some() && held == leased() {
                assert_eq!(count("total"), u64::from(SUBNETS), "{view}");
                assert_eq!(
                    count("free") + count("leased") + count("reserved"),
                    count("total"),
                    "{view}"
                );
                return;
            }
            assert!(Instant::now() < deadline, "{held:?} is not {view}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
