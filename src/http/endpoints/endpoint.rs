//! An endpoint: its route and handler, who may call it, and its description, in one row.

use std::fmt;

use axum::{extract::Request, handler::Handler, http::Method, response::Response};
use futures_util::future::BoxFuture;
use utoipa::openapi::{
    Paths, RefOr, Schema,
    path::{Parameter, ParameterIn},
};

use crate::{
    auth::Scope,
    http::{problem::ProblemKind, state::RequestState},
};

/// A row of the table of endpoints. An endpoint that names no access takes a token with the scope
/// `operate`.
pub(in crate::http) struct Endpoint {
    pub(in crate::http) path: String,
    pub(in crate::http) method: Method,
    pub(in crate::http) access: Access,
    pub(in crate::http) routine: Routine,
    pub(in crate::http) body: BodyKind,
    pub(in crate::http) query: QueryKind,
    /// The problems that a call may end with, beside those that come with its access and its body.
    pub(in crate::http) problems: &'static [ProblemKind],
    pub(in crate::http) handler: RouteHandler,
    /// `None` for an endpoint that is no part of the API.
    pub(in crate::http) description: Option<Description>,
}

/// A handler of any arguments. axum's own `MethodRouter` would clone a box for each call, and its
/// `Router` would put the parameters of the path into the request's extensions.
pub(in crate::http) struct RouteHandler(Box<Handling>);

type Handling = dyn Fn(Request, RequestState) -> BoxFuture<'static, Response> + Send + Sync;

impl RouteHandler {
    pub(in crate::http) fn new<T, H>(handler: H) -> Self
    where
        H: Handler<T, RequestState, Future = BoxFuture<'static, Response>> + Sync,
    {
        Self(Box::new(move |request, state| handler.clone().call(request, state)))
    }

    pub(in crate::http) fn call(
        &self,
        request: Request,
        state: RequestState,
    ) -> BoxFuture<'static, Response> {
        (self.0)(request, state)
    }
}

impl fmt::Debug for RouteHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteHandler").finish_non_exhaustive()
    }
}

/// A handler, and the description that its attribute `#[utoipa::path]` makes.
pub(in crate::http) type DescribedHandler = (Description, RouteHandler);

/// The [`DescribedHandler`] of a handler with the attribute `#[utoipa::path]`.
macro_rules! routes {
    ($handler:ident) => {{
        let (schemas, paths, _): utoipa_axum::router::UtoipaMethodRouter<
            $crate::http::state::RequestState,
        > = utoipa_axum::routes!($handler);
        let description = $crate::http::endpoints::Description { schemas, paths };
        (description, $crate::http::endpoints::RouteHandler::new($handler))
    }};
}
pub(in crate::http) use routes;

/// The part of the API's document that describes an endpoint.
pub(in crate::http) struct Description {
    pub(in crate::http) schemas: Vec<(String, RefOr<Schema>)>,
    pub(in crate::http) paths: Paths,
}

/// The callers who are admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Access {
    /// Everybody.
    Public,
    /// Everybody. The endpoint checks the token itself.
    Session,
    /// Callers with a token that has the scope.
    Scope(Scope),
    /// Callers with a token that has the scope, and Grafana by its signature.
    ScopeOrSignature(Scope),
}

impl Access {
    /// Returns the scope that a token needs; `None` if no token is needed.
    pub(in crate::http) const fn scope(self) -> Option<Scope> {
        match self {
            Self::Public | Self::Session => None,
            Self::Scope(scope) | Self::ScopeOrSignature(scope) => Some(scope),
        }
    }
}

/// The kind of body that an endpoint takes, by which its size is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum BodyKind {
    /// The body of a call.
    Call,
    /// A delivery of Alertmanager.
    Delivery,
    /// A short body of a caller without a token.
    Login,
}

/// The treatment of the parameters in the query of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum QueryKind {
    /// The handler reads them.
    Read,
    /// There are none, so that any is refused.
    Refused,
    /// There are none, but others may add some: people to the address of a webhook, Prometheus and
    /// load balancers to that of a probe, browsers to that of a file.
    Ignored,
}

/// The treatment of calls that programs repeat every few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Routine {
    /// They have none.
    No,
    /// They are not traced.
    Scrape,
    /// They are not traced, and are answered also while the service is overloaded.
    Probe,
}

impl Endpoint {
    /// Creates an endpoint with the method, the path and the description of its handler's
    /// attribute. `id` is its operation id. If no parameter of a query is described, all are
    /// refused.
    pub(in crate::http) fn new(id: &str, described: DescribedHandler) -> Self {
        let (mut description, handler) = described;
        let mut endpoint = Self::undescribed("", handler);
        for (path, item) in &mut description.paths.paths {
            let operations = [
                (Method::GET, &mut item.get),
                (Method::POST, &mut item.post),
                (Method::PUT, &mut item.put),
                (Method::DELETE, &mut item.delete),
            ];
            for (method, operation) in operations {
                let Some(operation) = operation else { continue };
                operation.operation_id = Some(id.to_owned());
                let is_of_query = |parameter: &RefOr<Parameter>| {
                    let RefOr::T(parameter) = parameter else { return false };
                    parameter.parameter_in == ParameterIn::Query
                };
                let has_query = operation.parameters.iter().flatten().any(is_of_query);
                endpoint.query = if has_query { QueryKind::Read } else { QueryKind::Refused };
                endpoint.path.clone_from(path);
                endpoint.method = method;
            }
        }
        Self { description: Some(description), ..endpoint }
    }

    /// Creates an endpoint for GET that is no part of the API.
    pub(in crate::http) fn undescribed(path: &str, handler: RouteHandler) -> Self {
        Self {
            path: path.to_owned(),
            method: Method::GET,
            access: Access::Scope(Scope::Operate),
            routine: Routine::No,
            body: BodyKind::Call,
            query: QueryKind::Ignored,
            problems: &[],
            handler,
            description: None,
        }
    }

    pub(in crate::http) fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    pub(in crate::http) fn public(self) -> Self {
        self.access(Access::Public)
    }

    pub(in crate::http) fn scope(self, scope: Scope) -> Self {
        self.access(Access::Scope(scope))
    }

    pub(in crate::http) fn routine(self, routine: Routine) -> Self {
        Self { routine, ..self }
    }

    pub(in crate::http) fn body(self, body: BodyKind) -> Self {
        Self { body, ..self }
    }

    pub(in crate::http) fn any_query(self) -> Self {
        Self { query: QueryKind::Ignored, ..self }
    }

    pub(in crate::http) fn problems(self, problems: &'static [ProblemKind]) -> Self {
        Self { problems, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[utoipa::path(put, path = "/things/{id}", responses((status = 200)))]
    async fn replace() {}

    #[test]
    fn a_row_without_an_access_takes_the_scope_operate() {
        let endpoint = Endpoint::new("things.replace", routes!(replace));
        assert_eq!(endpoint.access, Access::Scope(Scope::Operate));
        assert_eq!(endpoint.routine, Routine::No);
        assert_eq!(endpoint.query, QueryKind::Refused);
        assert_eq!(endpoint.path, "/things/{id}");
        assert_eq!(endpoint.method, Method::PUT);
        let paths = endpoint.description.unwrap().paths;
        let operation = paths.paths["/things/{id}"].put.as_ref().unwrap();
        assert_eq!(operation.operation_id.as_deref(), Some("things.replace"));
    }
}
