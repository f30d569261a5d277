//! An endpoint: its route and handler, who may call it, and its description, in one row.

use axum::{http::Method, routing::MethodRouter};
use utoipa::openapi::{Paths, RefOr, Schema};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::{
    auth::Scope,
    http::{problem::ProblemKind, state::AppState},
};

/// A row of the table of endpoints. An endpoint that names no access takes a token with the scope
/// `operate`.
pub(in crate::http) struct Endpoint {
    pub(in crate::http) path: String,
    pub(in crate::http) method: Method,
    pub(in crate::http) access: Access,
    pub(in crate::http) routine: Routine,
    pub(in crate::http) body: BodyKind,
    /// The problems that a call may end with, beside those that come with its access and its body.
    pub(in crate::http) problems: &'static [ProblemKind],
    pub(in crate::http) handler: MethodRouter<AppState>,
    /// `None` for an endpoint that is no part of the API.
    pub(in crate::http) description: Option<Description>,
}

/// The part of the API's document that describes an endpoint.
pub(in crate::http) struct Description {
    pub(in crate::http) schemas: Vec<(String, RefOr<Schema>)>,
    pub(in crate::http) paths: Paths,
}

/// The callers who are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Access {
    /// Everybody.
    Public,
    /// Callers whose token has the scope.
    Scope(Scope),
    /// Callers whose token has the scope, and Grafana by its signature.
    ScopeOrSignature(Scope),
}

impl Access {
    /// The scope that a token needs; `None` where no token is needed.
    pub(in crate::http) const fn scope(self) -> Option<Scope> {
        match self {
            Self::Public => None,
            Self::Scope(scope) | Self::ScopeOrSignature(scope) => Some(scope),
        }
    }
}

/// The kind of body that an endpoint takes, by which its size is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum BodyKind {
    /// A call.
    Call,
    /// A delivery of Alertmanager.
    Delivery,
}

/// The treatment of calls that programs repeat every few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Routine {
    /// As any other call.
    No,
    /// They have no trace.
    Scrape,
    /// They have no trace, and are answered also while the service is overloaded.
    Probe,
}

impl Endpoint {
    /// An endpoint with the method, the path and the description of its handler's attribute. `id`
    /// is its operation id.
    pub(in crate::http) fn new(id: &str, routes: UtoipaMethodRouter<AppState>) -> Self {
        let (schemas, mut paths, handler) = routes;
        let mut endpoint = Self::undescribed("", handler);
        for (path, item) in &mut paths.paths {
            let operations = [
                (Method::GET, &mut item.get),
                (Method::POST, &mut item.post),
                (Method::PUT, &mut item.put),
                (Method::DELETE, &mut item.delete),
            ];
            for (method, operation) in operations {
                let Some(operation) = operation else { continue };
                operation.operation_id = Some(id.to_owned());
                endpoint.path.clone_from(path);
                endpoint.method = method;
            }
        }
        Self { description: Some(Description { schemas, paths }), ..endpoint }
    }

    /// An endpoint for GET that is no part of the API.
    pub(in crate::http) fn undescribed(path: &str, handler: MethodRouter<AppState>) -> Self {
        Self {
            path: path.to_owned(),
            method: Method::GET,
            access: Access::Scope(Scope::Operate),
            routine: Routine::No,
            body: BodyKind::Call,
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

    pub(in crate::http) fn problems(self, problems: &'static [ProblemKind]) -> Self {
        Self { problems, ..self }
    }
}

#[cfg(test)]
mod tests {
    use utoipa_axum::routes;

    use super::*;

    #[utoipa::path(put, path = "/things/{id}", responses((status = 200)))]
    async fn replace() {}

    #[test]
    fn what_a_row_does_not_name_takes_the_most() {
        let endpoint = Endpoint::new("things.replace", routes!(replace));
        assert_eq!(endpoint.access, Access::Scope(Scope::Operate));
        assert_eq!(endpoint.routine, Routine::No);
        assert_eq!(endpoint.path, "/things/{id}");
        assert_eq!(endpoint.method, Method::PUT);
        let paths = endpoint.description.unwrap().paths;
        let operation = paths.paths["/things/{id}"].put.as_ref().unwrap();
        assert_eq!(operation.operation_id.as_deref(), Some("things.replace"));
    }
}
