//! Stores without a service, behind the trait, for the tests that every store must pass.

use std::{path::Path, sync::Arc};

use anomaly_counter::{
    domain::{
        Actor, AlertPolicy, AnomalyKey, CountBy, EventId, FixMark, FixRemoval, Occurrence,
        TimelineConfig, Timestamp,
    },
    store::{
        CheckpointLimits, EmbeddedOpenError, EmbeddedStore, RecordingConfig, RedisConfig,
        RedisStore, RedisTlsConfig, Store, StoreConfig,
    },
};
use async_trait::async_trait;
use tempfile::TempDir;

use super::{RedisCluster, RedisServer};

/// Number of exact events, for tests that set no limit of their own: more than they have.
pub(crate) const EXACT_EVENTS: u32 = 10_000;

/// The number of ids of an anomaly's operations that a store remembers.
pub(crate) const OPERATION_IDS: u32 = 150;

/// A store with its files or its server.
#[async_trait]
pub(crate) trait Fixture: Send + Sized {
    async fn new() -> Self {
        Self::keeping(EXACT_EVENTS).await
    }

    /// Opens a store that keeps this many events of an anomaly exactly.
    async fn keeping(exact_events: u32) -> Self {
        Self::recording(keeping(exact_events)).await
    }

    async fn recording(config: RecordingConfig) -> Self;

    fn store(&self) -> Arc<dyn Store>;

    /// Opens the same data again, as after a restart of the service.
    async fn reopen(&mut self);

    /// Deletes all data.
    async fn clear(&mut self);
}

/// Runs each case on every store, which keeps this many events of an anomaly exactly.
macro_rules! over_every_store {
    ($exact_events:expr; $($case:ident),+ $(,)?) => {
        $(mod $case {
            use super::*;
            use crate::support::{ClusterFixture, EmbeddedFixture, RedisFixture};

            #[tokio::test(flavor = "multi_thread")]
            async fn embedded() {
                super::$case(EmbeddedFixture::keeping($exact_events).await).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn redis() {
                super::$case(RedisFixture::keeping($exact_events).await).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn redis_cluster() {
                super::$case(ClusterFixture::keeping($exact_events).await).await;
            }
        })+
    };
}
pub(crate) use over_every_store;

/// The embedded store with continuous checkpoints in the smallest steps, so that nearly every
/// restart interrupts one.
pub(crate) struct CheckpointingFixture(EmbeddedFixture);

const SMALLEST_STEPS: CheckpointLimits =
    CheckpointLimits { journal_bytes: 1, step_bytes: 1, step_journal_rows: 1 };

#[async_trait]
impl Fixture for CheckpointingFixture {
    async fn recording(config: RecordingConfig) -> Self {
        Self(EmbeddedFixture::with(SMALLEST_STEPS, config))
    }

    fn store(&self) -> Arc<dyn Store> {
        self.0.store()
    }

    async fn reopen(&mut self) {
        self.0.reopen().await;
    }

    async fn clear(&mut self) {
        self.0.clear().await;
    }
}

pub(crate) struct EmbeddedFixture {
    dir: TempDir,
    limits: CheckpointLimits,
    recording: RecordingConfig,
    store: Option<Arc<dyn Store>>,
}

impl EmbeddedFixture {
    fn with(limits: CheckpointLimits, recording: RecordingConfig) -> Self {
        let dir = TempDir::new().unwrap();
        let mut fixture = Self { dir, limits, recording, store: None };
        fixture.open();
        fixture
    }

    fn open(&mut self) {
        let store =
            EmbeddedStore::open_with(self.dir.path(), self.recording, store_limits(), self.limits)
                .unwrap();
        self.store = Some(Arc::new(store));
    }

    async fn close(&mut self) {
        if let Some(store) = self.store.take() {
            store.close().await;
        }
    }
}

#[async_trait]
impl Fixture for EmbeddedFixture {
    async fn recording(config: RecordingConfig) -> Self {
        Self::with(CheckpointLimits::default(), config)
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    async fn reopen(&mut self) {
        self.close().await;
        self.open();
    }

    async fn clear(&mut self) {
        self.close().await;
        self.dir = TempDir::new().unwrap();
        self.open();
    }
}

/// Returns the configuration of a store that keeps this many events of an anomaly exactly, and
/// counts alerts as the default configuration does.
pub(crate) fn keeping(exact_events: u32) -> RecordingConfig {
    let operation_ids = OPERATION_IDS.try_into().unwrap();
    let timeline = TimelineConfig { exact_events: exact_events.try_into().unwrap(), operation_ids };
    let alerts = AlertPolicy {
        count: CountBy::Incident,
        stale_after_seconds: 13 * 3_600,
        incident_max_seconds: 24 * 3_600,
        count_missed: false,
    };
    RecordingConfig { timeline, alerts }
}

/// Returns the section `store` of a configuration, with a limit that no test reaches.
pub(crate) fn store_limits() -> StoreConfig {
    StoreConfig {
        max_anomalies: 5_000_000.try_into().unwrap(),
        write_timeout_ms: 60_000.try_into().unwrap(),
    }
}

/// Opens the embedded store in a folder, with limits that no test reaches.
pub(crate) fn open_embedded(dir: &Path) -> Result<EmbeddedStore, EmbeddedOpenError> {
    EmbeddedStore::open(dir, keeping(EXACT_EVENTS), store_limits())
}

pub(crate) struct RedisFixture {
    server: RedisServer,
    recording: RecordingConfig,
    pub(crate) store: Arc<dyn Store>,
}

impl RedisFixture {
    /// Opens a store on a Redis that begins with the data of a snapshot.
    pub(crate) async fn over_snapshot(snapshot: &Path, exact_events: u32) -> Self {
        let mut server = RedisServer::start();
        server.restart_with_snapshot(snapshot);
        let recording = keeping(exact_events);
        let store = connect(&server.url(), recording).await;
        Self { server, recording, store }
    }
}

pub(crate) struct ClusterFixture {
    cluster: RedisCluster,
    recording: RecordingConfig,
    store: Arc<dyn Store>,
}

/// Opens a store on the servers of a URL, with the settings of the tests.
pub(crate) async fn connect(url: &str, recording: RecordingConfig) -> Arc<dyn Store> {
    let url = url.parse().unwrap();
    let config = RedisConfig {
        url: None,
        key_prefix: "anomaly:".to_owned(),
        connections: 2.try_into().unwrap(),
        concurrent_batches: 4.try_into().unwrap(),
        batch_items: 512.try_into().unwrap(),
        command_timeout_ms: 5_000.try_into().unwrap(),
        connect_timeout_ms: 5_000.try_into().unwrap(),
        tls: RedisTlsConfig::default(),
    };
    Arc::new(RedisStore::connect(&config, recording, &url).await.unwrap())
}

#[async_trait]
impl Fixture for RedisFixture {
    async fn recording(recording: RecordingConfig) -> Self {
        let server = RedisServer::start();
        let store = connect(&server.url(), recording).await;
        Self { server, recording, store }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = connect(&self.server.url(), self.recording).await;
    }

    async fn clear(&mut self) {
        self.server.client().await.run(&["FLUSHALL"]).await;
    }
}

#[async_trait]
impl Fixture for ClusterFixture {
    async fn recording(recording: RecordingConfig) -> Self {
        let cluster = RedisCluster::of_masters(3).await;
        let store = connect(&cluster.url(), recording).await;
        Self { cluster, recording, store }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = connect(&self.cluster.url(), self.recording).await;
    }

    async fn clear(&mut self) {
        for master in self.cluster.masters() {
            master.client().await.run(&["FLUSHALL"]).await;
        }
    }
}

/// Returns an arbitrary moment, 2024-11-22T14:21:22.587413Z. It is long before the time of the
/// machine, so that Redis forgets nothing that is still kept at that moment.
pub(crate) fn start_of_tests() -> Timestamp {
    Timestamp::from_micros(1_732_285_282_587_413)
}

pub(crate) fn occurrence(key: u64, id: &str, at: Timestamp) -> Occurrence {
    Occurrence {
        key: AnomalyKey::from_bits(key),
        id: EventId::parse(id).unwrap(),
        at,
        signature_json: r#"{"alert_name":"HighCPU","pod":"p-1"}"#.into(),
        episode: None,
        rule: None,
    }
}

pub(crate) fn fix_mark(key: u64, id: &str, at: Timestamp) -> FixMark {
    FixMark {
        key: AnomalyKey::from_bits(key),
        id: EventId::parse(id).unwrap(),
        at,
        description: "raised the limit".to_owned(),
        fixed_by: Some("ops".to_owned()),
        actor: actor(),
    }
}

pub(crate) fn fix_removal(key: u64, id: &str, at: Timestamp) -> FixRemoval {
    let id = EventId::parse(id).unwrap();
    FixRemoval {
        key: AnomalyKey::from_bits(key),
        id,
        at,
        reason: Some("too early".to_owned()),
        actor: actor(),
    }
}

/// Returns the actor of all writes of the tests.
pub(crate) fn actor() -> Actor {
    Actor {
        by: Some("ops".to_owned()),
        token: Some("console".to_owned()),
        request_id: Some("r-1".to_owned()),
    }
}
