//! `/problems/{name}`: explains a type of problem; the `type` of each problem leads here.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::endpoint::{Endpoint, routes};
use crate::http::{
    extract::TextPath,
    problem::{Problem, ProblemKind},
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("problems.explain", routes!(explain))
            .public()
            .problems(&[ProblemKind::UnknownRoute]),
    ]
}

/// The end of a problem's `type`.
struct ProblemName;

impl ToSchema for ProblemName {}

impl PartialSchema for ProblemName {
    fn schema() -> RefOr<Schema> {
        let names = ProblemKind::ALL.map(|kind| kind.explanation().name);
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
    }
}

/// Explain a type of problem.
///
/// The `type` of each problem links here. The response is plain text for people.
#[utoipa::path(
    get,
    path = "/problems/{name}",
    tag = "documentation",
    params(("name" = inline(ProblemName), Path, description = "The end of the problem's `type`.")),
    responses((
        status = 200,
        description = "The title, the status, the meaning and what to do.",
        body = String,
        content_type = "text/plain; charset=utf-8",
    )),
)]
async fn explain(TextPath(name): TextPath) -> Result<String, Problem> {
    let kind = ProblemKind::ALL.into_iter().find(|kind| kind.explanation().name == name);
    let kind = kind.ok_or_else(|| {
        let detail = "no problem type has this name: /openapi.json lists all types";
        Problem::new(ProblemKind::UnknownRoute, detail)
    })?;
    let explanation = kind.explanation();
    Ok(format!(
        "{title} ({status})\n\n{meaning}\n\nWhat to do: {remedy}\n",
        title = explanation.title,
        status = kind.status(),
        meaning = explanation.meaning,
        remedy = explanation.remedy,
    ))
}
