//! The API: one file a resource, each with its handlers, their answers, and the rows by which they
//! are routed, protected and described.

mod alertmanager;
mod anomalies;
mod audit;
mod dead_letters;
mod endpoint;
mod health;
mod history;
mod list;
mod lookup;
mod metrics;
mod page;
mod permanent_fix;
mod problems;
mod repairs;
mod root;
mod rules;
mod session;
mod summary;

#[cfg(fuzzing)]
pub(super) use alertmanager::DeliveryRequest;
pub(super) use alertmanager::{AlertRequest, note_refusal, register_metrics};
pub use dead_letters::{DeadLetterBody, RetriedBody};
pub(super) use endpoint::{
    Access, BodyKind, Description, Endpoint, QueryKind, RouteHandler, Routine, routes,
};

/// All endpoints of the API, in the order in which they are described.
pub(super) fn all() -> impl Iterator<Item = Endpoint> {
    [
        anomalies::endpoints(),
        lookup::endpoints(),
        history::endpoints(),
        list::endpoints(),
        summary::endpoints(),
        audit::endpoints(),
        repairs::endpoints(),
        permanent_fix::endpoints(),
        alertmanager::endpoints(),
        rules::endpoints(),
        health::endpoints(),
        metrics::endpoints(),
        dead_letters::endpoints(),
        session::endpoints(),
        problems::endpoints(),
        root::endpoints(),
        page::endpoints(),
    ]
    .into_iter()
    .flatten()
}
