//! The budget of memory for a POST to the embedded store.
#![allow(clippy::unwrap_used, reason = "a test says what failed by failing")]

mod budget;

use self::budget::{Budget, check};

const BUDGET: Budget = Budget { allocations: 16, bytes: 6 << 10 };

#[test]
fn a_post_to_the_embedded_store_stays_within_its_budget() {
    check(&BUDGET, None);
}
