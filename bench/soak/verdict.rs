//! The verdict about growth after the fill-up: compares the last quarter of the steady time with
//! the first, without what the load itself has added between them.

use serde::Serialize;

use crate::{
    markdown,
    sample::{Phase, Sample},
    service::Store,
    stats::median,
};

/// The expected size of an occurrence of a quiet anomaly, in the embedded store's memory and file
/// and in Redis: its time and its id are 24 to 33 bytes, and allocators and pages have overhead.
const BYTES_PER_OCCURRENCE: f64 = 40.0;
/// Growth must exceed this share of the first quarter…
const SHARE: f64 = 0.15;
/// …and these limits: a cache fills, a journal grows between two checkpoints, a machine is busy.
const MEMORY_BYTES: f64 = 16.0 * MIB;
const FILE_BYTES: f64 = 32.0 * MIB;
const P50_MS: f64 = 2.0;
const P99_MS: f64 = 20.0;
const MIB: f64 = 1_048_576.0;

/// One measured quantity.
struct Series {
    what: &'static str,
    of: fn(&Sample) -> Option<f64>,
    /// Growth that each occurrence of the load causes by itself.
    own: f64,
    /// Smallest change that counts as growth.
    least: f64,
    /// False for latencies: in a development build they depend on the machine's other work, so they
    /// are only printed.
    is_judged: bool,
    /// The unit in which it is printed.
    unit: (&'static str, f64),
}

/// The result for one series, in its unit.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    store: &'static str,
    what: &'static str,
    unit: &'static str,
    /// The medians of the first and the last quarter.
    first: f64,
    last: f64,
    /// The growth between them that the load causes by itself.
    own: f64,
    has_grown: bool,
    is_judged: bool,
}

impl Verdict {
    pub(crate) fn has_grown(&self) -> bool {
        self.has_grown && self.is_judged
    }

    fn cells(&self) -> [String; 7] {
        let Self { store, what, unit, first, last, own, has_grown, is_judged } = self;
        let change = last - own - first;
        [
            (*store).to_owned(),
            format!("{what}, {unit}"),
            format!("{first:.2}"),
            format!("{last:.2}"),
            format!("{own:.2}"),
            format!("{change:+.2} ({:+.0} %)", 100.0 * change / first),
            match (is_judged, has_grown) {
                (false, _) => "not judged",
                (true, true) => "GREW",
                (true, false) => "steady",
            }
            .to_owned(),
        ]
    }
}

const HEADINGS: [&str; 7] =
    ["store", "what", "first quarter", "last quarter", "the load's own", "beyond it", ""];

pub(crate) fn render(verdicts: &[Verdict]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(verdicts.iter().map(Verdict::cells));
    markdown::table(&rows)
}

/// Judges each series of each store.
pub(crate) fn judge(stores: &[Store], samples: &[Sample]) -> Vec<Verdict> {
    let judge_store = |store: &Store| -> Vec<Verdict> {
        let steady: Vec<&Sample> = samples
            .iter()
            .filter(|sample| sample.store == store.name() && sample.phase == Phase::Steady)
            .collect();
        series(*store).iter().filter_map(|series| series.judge(store.name(), &steady)).collect()
    };
    stores.iter().flat_map(judge_store).collect()
}

fn series(store: Store) -> [Series; 5] {
    // On Redis the service itself does not keep occurrences.
    let own = if store == Store::Embedded { BYTES_PER_OCCURRENCE } else { 0.0 };
    let (mib, ms) = (("MiB", MIB), ("ms", 1.0));
    [
        Series {
            what: "service memory",
            of: |sample| Some(sample.service_bytes as f64),
            own,
            least: MEMORY_BYTES,
            is_judged: true,
            unit: mib,
        },
        Series {
            what: "Redis memory",
            of: |sample| sample.redis_bytes.map(|bytes| bytes as f64),
            own: BYTES_PER_OCCURRENCE,
            least: MEMORY_BYTES,
            is_judged: true,
            unit: mib,
        },
        Series {
            what: "files",
            of: |sample| Some(sample.file_bytes as f64),
            own,
            least: FILE_BYTES,
            is_judged: true,
            unit: mib,
        },
        Series {
            what: "p50",
            of: |sample| Some(sample.p50_ms),
            own: 0.0,
            least: P50_MS,
            is_judged: !cfg!(debug_assertions),
            unit: ms,
        },
        Series {
            what: "p99",
            of: |sample| Some(sample.p99_ms),
            own: 0.0,
            least: P99_MS,
            is_judged: !cfg!(debug_assertions),
            unit: ms,
        },
    ]
}

impl Series {
    /// None if the store has no such series.
    fn judge(&self, store: &'static str, steady: &[&Sample]) -> Option<Verdict> {
        let quarter = steady.len().div_ceil(4);
        let (first, last) = (&steady[..quarter], &steady[steady.len() - quarter..]);
        let middle = |samples: &[&Sample]| -> Option<(f64, f64)> {
            let figures: Vec<f64> =
                samples.iter().map(|sample| (self.of)(sample)).collect::<Option<_>>()?;
            let own: Vec<f64> =
                samples.iter().map(|sample| sample.spread as f64 * self.own).collect();
            Some((median(&figures), median(&own)))
        };
        let ((first, own_before), (last, own_after)) = (middle(first)?, middle(last)?);
        let own = own_after - own_before;
        let change = last - own - first;
        let has_grown = change > first * SHARE && change > self.least;
        let (unit, size) = self.unit;
        let (first, last, own) = (first / size, last / size, own / size);
        Some(Verdict {
            store,
            what: self.what,
            unit,
            first,
            last,
            own,
            has_grown,
            is_judged: self.is_judged,
        })
    }
}
