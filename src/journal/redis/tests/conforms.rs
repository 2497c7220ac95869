//! The contract's suite, against every kind of server.

use std::sync::Arc;

use test_servers::redis::{Cluster, DURABLE, Program, Redis, Watched};
use tokio::task::JoinSet;

use super::super::{Durability, Mode, Options};
use super::support::{open, options, place};
use crate::journal::Journal;
use crate::journal::conformance::{self, Factory};

/// Journals under one prefix after the other.
struct Backend {
    options: Options,
    made: usize,
    tasks: JoinSet<()>,
}

impl Factory for Backend {
    async fn fresh(&mut self) -> Arc<dyn Journal> {
        self.made += 1;
        self.options.prefix = format!("t{}", self.made);
        self.reopen().await
    }

    async fn reopen(&mut self) -> Arc<dyn Journal> {
        let opened = open(self.options.clone()).await;
        self.tasks = opened.tasks;
        opened.journal
    }
}

async fn conforms(options: Options) {
    conformance::run(&mut Backend { options, made: 0, tasks: JoinSet::new() }).await;
}

#[tokio::test]
async fn redis_keeps_the_contract() {
    let redis = Redis::start_durable(Program::Redis);
    conforms(options(place(Mode::Standalone, vec![redis.url()]), Durability::Fsync)).await;
}

#[tokio::test]
async fn valkey_keeps_the_contract_with_its_disk_confirmed() {
    let valkey = Redis::start_durable(Program::Valkey);
    let options = options(place(Mode::Standalone, vec![valkey.url()]), Durability::Strict);
    conforms(Options { replicas: 0, ..options }).await;
}

#[tokio::test]
async fn a_cluster_keeps_the_contract() {
    let cluster = Cluster::start(Program::Redis, 3);
    conforms(options(place(Mode::Cluster, cluster.urls()), Durability::Fsync)).await;
}

#[tokio::test]
async fn a_watched_pair_keeps_the_contract_with_its_replica_confirmed() {
    let mut config = DURABLE.to_vec();
    config.extend(["min-replicas-to-write 1", "appendfsync everysec"]);
    let watched = Watched::start(Program::Redis, &config);
    conforms(options(place(Mode::Sentinel, watched.urls()), Durability::Replicated)).await;
}
