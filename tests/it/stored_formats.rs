//! Files and Redis keys that commit 8c08e13 wrote are read, with everything in them. Files of older
//! and of newer formats are refused, and stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anomaly_counter::{
    domain::{AnomalyKey, AuditEvent, EventId, Operation, Timestamp},
    spool::{Spool, SpoolConfig, SpoolOpenError, SpoolWrite},
    store::{AnomalyDetails, EmbeddedOpenError, EmbeddedStore, RecordOutcome, Store},
};
use redb::{
    Database, Key, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
    WriteTransaction,
};
use tempfile::TempDir;

use crate::support::{Ended, RedisFixture, anomaly_counter, keeping, occurrence, store_limits};

/// Number of exact events of the timelines in the data.
const EXACT_EVENTS: u32 = 10;

/// The time of the first event, in microseconds.
const WRITTEN_AT: i64 = 1_795_357_282_587_413;
/// Number of seconds after that at which the data are read.
const READ_AT: i64 = 12_600;

fn written(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/8c08e13").join(name)
}

/// Creates a data directory with a copy of a file of that commit.
fn data_dir_with(name: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::copy(written(name), dir.path().join(name)).unwrap();
    dir
}

fn after_start(seconds: i64) -> Timestamp {
    Timestamp::from_micros(WRITTEN_AT).plus_seconds(seconds)
}

async fn details(store: &dyn Store, key: u64) -> AnomalyDetails {
    let details = store.details(after_start(READ_AT).into(), AnomalyKey::from_bits(key)).await;
    details.unwrap().expect("the anomaly is known")
}

async fn audit(store: &dyn Store, key: u64) -> Vec<AuditEvent> {
    let audit = store.audit(after_start(READ_AT).into(), AnomalyKey::from_bits(key)).await;
    audit.unwrap().unwrap().into_iter().map(|entry| entry.event).collect()
}

/// Checks the contents of both stores.
async fn holds_what_was_written(store: &dyn Store) {
    let quiet = details(store, 1).await;
    assert_eq!(quiet.stats.counts.hour, 1);
    assert_eq!(quiet.stats.counts.day, 2);
    assert_eq!(quiet.stats.first_seen, Some(after_start(0)));
    assert_eq!(quiet.known_since, Some(after_start(0)));
    let signature = r#"{"alert_name":"Alert1","service":"api","pod":"p-1"}"#;
    assert_eq!(quiet.signature_json.as_deref(), Some(signature));

    // Forty events, 300 s apart; all but the newest ten are rolled up.
    let busy = details(store, 2).await;
    assert_eq!(busy.stats.counts.day, 40);
    assert_eq!(busy.stats.last_seen, Some(after_start(39 * 300)));

    let repaired = details(store, 3).await;
    let successes: Vec<bool> = repaired.repairs.recent.iter().map(|r| r.success).collect();
    assert_eq!(successes, [true, false], "newest first");
    let fix = repaired.fix.expect("a mark holds");
    assert_eq!(fix.description.as_deref(), Some("raised the limit"));
    assert_eq!(fix.fixed_by.as_deref(), Some("ana"));
    assert_eq!(fix.marked_at, after_start(30));
    let attempt = |success| AuditEvent::RepairAttempted { action: "restart_pod".into(), success };
    let marked = || AuditEvent::MarkedFixed { description: "raised the limit".into() };
    assert_eq!(audit(store, 3).await, [marked(), attempt(true), attempt(false)]);

    assert_eq!(details(store, 4).await.fix, None);
    assert_eq!(audit(store, 4).await, [AuditEvent::UnmarkedFixed { reason: None }, marked()]);

    let newest = details(store, 5).await;
    assert_eq!(newest.repairs.total, 1);
    assert_eq!(newest.fix.map(|fix| fix.marked_at), Some(after_start(12_400)));
}

/// Checks that copies of written events are recognised, and that new events are counted.
async fn goes_on(store: &dyn Store) {
    let now = after_start(READ_AT);
    let again = vec![
        occurrence(1, "quiet", after_start(0)),
        occurrence(2, "busy-39", after_start(39 * 300)),
        // The id of a rolled-up event.
        occurrence(2, "busy-28", after_start(28 * 300)),
        occurrence(5, "fresh", now),
    ];
    let recorded = store.record(now.into(), again).await;
    let outcomes: Vec<_> = recorded.into_iter().map(|result| result.unwrap().outcome).collect();
    use RecordOutcome::{Counted, Duplicate};
    assert_eq!(outcomes, [Duplicate, Duplicate, Duplicate, Counted]);
}

#[tokio::test]
async fn the_embedded_file_of_8c08e13_is_read_and_can_be_written() {
    let dir = data_dir_with("anomalies.redb");
    let store = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap();
    holds_what_was_written(&store).await;
    goes_on(&store).await;
    store.close().await;
    drop(store);

    let reopened = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap();
    holds_what_was_written(&reopened).await;
    still_holds_all_of_it(&reopened).await;
    reopened.close().await;
}

/// The file is from a process of that commit that lost power during a commit of redb.
#[tokio::test]
async fn an_embedded_file_of_8c08e13_with_a_torn_last_commit_is_read_without_it() {
    const TORN: &[u8] = b"a row of a commit that was never complete";
    let written = data_dir_with("anomalies.redb");
    let database = Database::open(written.path().join("anomalies.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let journal = TableDefinition::<u64, &[u8]>::new("journal_v1");
    transaction.open_table(journal).unwrap().insert(u64::MAX - 1, TORN).unwrap();
    transaction.commit().unwrap();
    let mut bytes = fs::read(written.path().join("anomalies.redb")).unwrap();
    let torn = bytes.windows(TORN.len()).rposition(|window| window == TORN).unwrap();
    bytes[torn] ^= 1;

    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("anomalies.redb"), bytes).unwrap();
    let store = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap();
    holds_what_was_written(&store).await;
    goes_on(&store).await;
    store.close().await;
}

/// Checks the contents, with the additions of [`goes_on`].
async fn still_holds_all_of_it(store: &dyn Store) {
    assert_eq!(details(store, 2).await.stats.counts.day, 40);
    assert_eq!(details(store, 5).await.stats.counts.day, 2);
}

/// A table of commit 8c08e13, which takes a file without it for an empty one.
const OLD_ANOMALIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("anomalies_v2");

#[tokio::test]
async fn commit_8c08e13_refuses_a_file_of_this_version_instead_of_beginning_empty() {
    for dir in [TempDir::new().unwrap(), data_dir_with("anomalies.redb")] {
        let store = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap();
        store.close().await;
        drop(store);
        let database = Database::open(dir.path().join("anomalies.redb")).unwrap();
        let opened = database.begin_write().unwrap().open_table(OLD_ANOMALIES).map(|_| ());
        assert!(matches!(opened, Err(TableError::TableTypeMismatch { .. })), "{opened:?}");
    }
}

/// Adds a row to a file of this version, as another program does.
fn insert<K: Key + 'static>(file: &Path, table: &str, key: K::SelfType<'_>, row: &[u8]) {
    let database = Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = TableDefinition::<K, &[u8]>::new(table);
    transaction.open_table(table).unwrap().insert(key, row).unwrap();
    transaction.commit().unwrap();
}

/// Returns the rows of a table with numbers as keys.
fn rows(file: &Path, table: &str) -> Vec<(u64, Vec<u8>)> {
    let database = Database::open(file).unwrap();
    let transaction = database.begin_read().unwrap();
    let table = transaction.open_table(TableDefinition::<u64, &[u8]>::new(table)).unwrap();
    let row = |entry: Result<_, _>| {
        let (key, row): (redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>) = entry.unwrap();
        (key.value(), row.value().to_vec())
    };
    table.range::<u64>(..).unwrap().map(row).collect()
}

/// Makes a file whose rows are of version 1: those of commit 8c08e13 with a byte in front, in
/// tables of other names.
fn make_version_1(file: &Path) {
    fn rename<K: Key + 'static>(transaction: &WriteTransaction, from: &str, to: &str) {
        let from = TableDefinition::<K, &[u8]>::new(from);
        {
            let old = transaction.open_table(from).unwrap();
            let mut new = transaction.open_table(TableDefinition::<K, &[u8]>::new(to)).unwrap();
            for entry in old.iter().unwrap() {
                let (key, row) = entry.unwrap();
                new.insert(key.value(), [&[1], row.value()].concat().as_slice()).unwrap();
            }
        }
        transaction.delete_table(from).unwrap();
    }
    let database = Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    rename::<u64>(&transaction, "anomalies_v2", "anomalies");
    rename::<u64>(&transaction, "journal_v1", "journal");
    rename::<(u64, u64, u32)>(&transaction, "audit_v1", "audit");
    let barrier = TableDefinition::<&str, &str>::new("anomalies_v2");
    transaction.open_table(barrier).unwrap();
    transaction.commit().unwrap();
}

#[tokio::test]
async fn embedded_rows_of_version_1_are_read_and_can_be_written() {
    let dir = data_dir_with("anomalies.redb");
    make_version_1(&dir.path().join("anomalies.redb"));
    for _ in 0..2 {
        let store = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap();
        holds_what_was_written(&store).await;
        store.close().await;
    }
    let store = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap();
    goes_on(&store).await;
    store.close().await;
    drop(store);
    let store = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap();
    still_holds_all_of_it(&store).await;
    store.close().await;
}

#[tokio::test]
async fn rows_of_older_versions_are_recovered_from_a_damaged_file_as_far_as_redb_reads_it() {
    for version in [0, 1] {
        let dir = data_dir_with("anomalies.redb");
        let file = dir.path().join("anomalies.redb");
        if version == 1 {
            make_version_1(&file);
        }
        damage_a_row(&file);
        let error =
            EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap_err();
        assert!(matches!(error, EmbeddedOpenError::Unreadable { .. }), "{error}");
        let mut command = anomaly_counter(&["recover"]);
        command.env("ANOMALY_COUNTER__DATA_DIR", dir.path());
        let report = Ended::of(&mut command).succeeded().stdout;
        assert!(report.contains("rows have the format of an older version"), "{report}");
        let store = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap();
        let mut known = 0;
        for key in 1..=5 {
            let details =
                store.details(after_start(READ_AT).into(), AnomalyKey::from_bits(key)).await;
            known += usize::from(details.unwrap().is_some());
        }
        assert!(known >= 4, "{known} of five anomalies: {report}");
        store.close().await;
    }
}

/// Flips a bit in a text of a signature, which is in no other row.
fn damage_a_row(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let text = b"p-1";
    let positions: Vec<_> = bytes.windows(3).enumerate().filter(|(_, w)| w == text).collect();
    let positions: Vec<usize> = positions.into_iter().map(|(position, _)| position).collect();
    assert!(!positions.is_empty());
    for position in positions {
        bytes[position] ^= 1;
    }
    fs::write(file, bytes).unwrap();
}

/// A row of version 7 in the table of this kind, with what only that version can read.
fn row_of_version_7(kind: u8) -> Vec<u8> {
    let payload = b"whatever it holds";
    let length = (payload.len() as u32).to_le_bytes();
    let checksum = crc32fast::hash(&[&[7, kind], &payload[..]].concat()).to_le_bytes();
    [b"\x07\xACrow", &[kind][..], &length, &checksum, payload].concat()
}

#[tokio::test]
async fn an_embedded_file_with_rows_of_a_newer_version_is_refused() {
    for (table, kind) in
        [("anomalies", b'A'), ("journal", b'J'), ("audit", b'U'), ("signatures_v1", b'S')]
    {
        let newer = row_of_version_7(kind);
        let dir = data_dir_with("anomalies.redb");
        let file = dir.path().join("anomalies.redb");
        let store = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap();
        store.close().await;
        drop(store);
        match table {
            "audit" => insert::<(u64, u64, u32)>(&file, table, (9, 9, 9), &newer),
            _ => insert::<u64>(&file, table, 999, &newer),
        }
        let journal = rows(&file, "journal");
        let error =
            EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap_err();
        assert!(matches!(error, EmbeddedOpenError::NewerVersion { found: 7, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("was written by a newer version"), "{text}");
        assert!(text.contains(file.to_str().unwrap()), "{text}");
        assert_eq!(rows(&file, "journal"), journal);
    }
}

#[test]
fn an_embedded_file_from_before_8c08e13_is_refused_and_untouched() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("anomalies.redb");
    let database = Database::create(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    for table in ["anomalies_v1", "journal_v1"] {
        let table = TableDefinition::<u64, &[u8]>::new(table);
        transaction.open_table(table).unwrap().insert(7, b"a row".as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);

    let error = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap_err();
    assert!(matches!(error, EmbeddedOpenError::UnknownFormat { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("its tables: anomalies_v1, journal_v1"), "{text}");
    for table in ["anomalies_v1", "journal_v1"] {
        assert_eq!(rows(&file, table), [(7, b"a row".to_vec())]);
    }
    let database = Database::open(&file).unwrap();
    assert_eq!(database.begin_read().unwrap().list_tables().unwrap().count(), 2);
}

#[test]
fn an_embedded_file_with_a_damaged_row_is_refused_before_it_is_converted() {
    let dir = data_dir_with("anomalies.redb");
    let file = dir.path().join("anomalies.redb");
    insert::<u64>(&file, "journal_v1", u64::MAX - 1, b"\xff\xff");
    let journal = rows(&file, "journal_v1");
    let error = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS), store_limits()).unwrap_err();
    assert!(matches!(error, EmbeddedOpenError::Unreadable { .. }), "{error}");
    assert_eq!(rows(&file, "journal_v1"), journal);
}

#[tokio::test]
async fn the_redis_keys_of_8c08e13_are_read_and_can_be_written() {
    let fixture = RedisFixture::over_snapshot(&written("dump.rdb"), EXACT_EVENTS).await;
    holds_what_was_written(&*fixture.store).await;
    goes_on(&*fixture.store).await;
    still_holds_all_of_it(&*fixture.store).await;
}

/// Opens a spool, and returns it with the writes that wait in it.
fn open_spool(dir: &TempDir) -> Result<(Spool, Vec<Operation>), SpoolOpenError> {
    let mut waiting = Vec::new();
    let config = SpoolConfig { max_bytes: 1 << 20 };
    let timeout = store_limits().write_timeout();
    let spool = Spool::open(dir.path(), config, timeout, after_start(READ_AT), |spooled| {
        waiting.push(spooled.operation.clone());
    })?;
    Ok((spool, waiting))
}

#[tokio::test]
async fn the_spool_of_8c08e13_is_read() {
    let dir = data_dir_with("spool.redb");
    let (spool, waiting) = open_spool(&dir).unwrap();
    let kinds: Vec<_> = waiting.iter().map(Operation::kind).collect();
    assert_eq!(kinds, ["occurrence", "repair", "permanent fix", "undoing of a permanent fix"]);
    let ids: Vec<_> = waiting.iter().map(|operation| operation.id().as_str()).collect();
    assert_eq!(ids, ["waits", "r1", "m", "u"]);
    let Operation::Mark(mark) = &waiting[2] else { panic!("another kind: {:?}", waiting[2]) };
    assert_eq!(mark.description, "raised the limit");
    assert_eq!(mark.actor.by.as_deref(), Some("ana"));
    assert_eq!(mark.at, after_start(7));

    let letters = spool.dead_letters(0, 100, usize::MAX).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.starts_with("WRONGTYPE"), "{}", letters[0].reason);
    let refused = letters[0].operation.as_ref().expect("its record is readable");
    assert_eq!(refused.id(), &EventId::parse("refused").unwrap());
    assert_eq!(spool.revive_dead(vec![letters[0].sequence]).await.unwrap(), [letters[0].sequence]);
}

#[tokio::test]
async fn records_of_an_old_and_the_present_version_wait_side_by_side() {
    let dir = data_dir_with("spool.redb");
    let (spool, waiting) = open_spool(&dir).unwrap();
    let new =
        |operation: &Operation| SpoolWrite { operation: operation.clone(), maybe_sent: false };
    spool.append(waiting.iter().map(new).collect()).await.unwrap();
    drop(spool);
    let records = rows(&dir.path().join("spool.redb"), "waiting_v1");
    let marks: Vec<_> = records.iter().map(|(_, record)| &record[..8]).collect();
    assert_eq!(marks[..4], [b"\xACspool1\n"; 4]);
    assert_eq!(marks[4..], [b"\xACspool4\n"; 4]);
    let (_, reopened) = open_spool(&dir).unwrap();
    assert_eq!(reopened, [&waiting[..], &waiting[..]].concat());
}

#[test]
fn records_of_8c08e13_are_salvaged_from_a_damaged_spool() {
    let dir = data_dir_with("spool.redb");
    let (_, waiting) = open_spool(&dir).unwrap();

    let dir = data_dir_with("spool.redb");
    damage(&dir.path().join("spool.redb"));
    let (_, salvaged) = open_spool(&dir).unwrap();
    assert!(waiting.iter().all(|operation| salvaged.contains(operation)), "{salvaged:?}");
}

/// Makes a redb file unreadable, and leaves its records unchanged.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    bytes[..64].fill(0);
    fs::write(file, bytes).unwrap();
}

/// Returns a record of version 5: the mark, the version, length and checksum, and contents that
/// only that version can read.
fn record_of_version_5() -> Vec<u8> {
    let payload = b"whatever it holds";
    let length = (payload.len() as u32).to_le_bytes();
    let checksum = crc32fast::hash(&[b"5", &payload[..]].concat()).to_le_bytes();
    [b"\xACspool5\n", &length[..], &checksum, payload].concat()
}

#[test]
fn a_spool_with_records_of_a_newer_version_is_refused() {
    let dir = data_dir_with("spool.redb");
    let file = dir.path().join("spool.redb");
    insert::<u64>(&file, "waiting_v1", 999, &record_of_version_5());
    let before = rows(&file, "waiting_v1");
    let refused = |error: SpoolOpenError| {
        assert!(matches!(error, SpoolOpenError::NewerVersion { found: 5, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("was written by a newer version"), "{text}");
        assert!(text.contains(file.to_str().unwrap()), "{text}");
    };
    refused(open_spool(&dir).unwrap_err());
    assert_eq!(rows(&file, "waiting_v1"), before, "no record became a dead letter");

    damage(&file);
    let damaged = fs::read(&file).unwrap();
    refused(open_spool(&dir).unwrap_err());
    assert_eq!(fs::read(&file).unwrap(), damaged);
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.contains("damaged")), "it was set aside: {names:?}");
}

#[test]
fn a_spool_with_dead_letters_of_a_newer_version_is_refused() {
    let dir = data_dir_with("spool.redb");
    let database = Database::open(dir.path().join("spool.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let dead = TableDefinition::<u64, (&str, &[u8])>::new("dead_v1");
    let letter = ("a reason", &record_of_version_5()[..]);
    transaction.open_table(dead).unwrap().insert(999, letter).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = open_spool(&dir).unwrap_err();
    assert!(matches!(error, SpoolOpenError::NewerVersion { found: 5, .. }), "{error}");
}
