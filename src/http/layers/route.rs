//! Finds the route of a request once, for all layers and for its handler.

use std::collections::HashMap;

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderValue, Method, header},
    response::{IntoResponse as _, Response},
};
use matchit::{Match, Params};
use percent_encoding::percent_decode_str;

use crate::{
    auth::Scope,
    http::{
        endpoints::{Access, BodyKind, Endpoint, QueryKind, RouteHandler, Routine},
        extract::refuse_parameters,
        problem::{Problem, ProblemKind},
        state::{PathValue, RequestState},
    },
};

/// A path of the service.
#[derive(Debug)]
pub(super) struct Route {
    /// The path with the names of its parameters, because requests have as many paths as there are
    /// anomalies.
    path: Box<str>,
    routine: Routine,
    body: BodyKind,
    methods: Vec<RouteMethod>,
}

/// A method that a path takes.
#[derive(Debug)]
struct RouteMethod {
    method: Method,
    access: Access,
    query: QueryKind,
    handler: RouteHandler,
}

impl Route {
    fn method(&self, method: &Method) -> Option<&RouteMethod> {
        // A GET answers HEAD too.
        let served = if method == Method::HEAD { &Method::GET } else { method };
        self.methods.iter().find(|taken| taken.method == *served)
    }

    /// Returns who may call the method. A method that the path does not take is refused later, so
    /// that only permitted callers learn which methods there are.
    fn access(&self, method: &Method) -> Access {
        if let Some(taken) = self.method(method) {
            return taken.access;
        }
        if self.methods.iter().all(|taken| taken.access == Access::Public) {
            return Access::Public;
        }
        unnamed(method)
    }

    fn not_allowed(&self, request: &Request) -> Response {
        let (method, path) = (request.method(), request.uri().path());
        let names = self.methods.iter().map(|taken| taken.method.as_str());
        let taken = names.clone().collect::<Vec<_>>().join(" or ");
        let detail = format!("{path} does not support {method}: use {taken}");
        let mut response = Problem::new(ProblemKind::MethodNotAllowed, detail).into_response();
        let with_head = |name| if name == "GET" { "GET,HEAD" } else { name };
        let allowed = names.map(with_head).collect::<Vec<_>>().join(",");
        if let Ok(allowed) = HeaderValue::try_from(allowed) {
            response.headers_mut().insert(header::ALLOW, allowed);
        }
        response
    }
}

/// Returns who may call paths and methods without an endpoint: callers with the scope `operate`
/// and, for reads, all readers, who learn that there is nothing.
fn unnamed(method: &Method) -> Access {
    match *method {
        Method::GET | Method::HEAD => Access::Scope(Scope::Read),
        _ => Access::Scope(Scope::Operate),
    }
}

/// The route of a request; `None` if its path has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteMatch(Option<&'static Route>);

impl RouteMatch {
    pub(super) fn access(self, method: &Method) -> Access {
        self.0.map_or_else(|| unnamed(method), |route| route.access(method))
    }

    pub(super) fn path(self) -> Option<&'static str> {
        self.0.map(|route| &*route.path)
    }

    pub(super) fn body(self) -> BodyKind {
        self.0.map_or(BodyKind::Call, |route| route.body)
    }

    pub(super) fn routine(self) -> Routine {
        self.0.map_or(Routine::No, |route| route.routine)
    }

    /// Lets the handler of the request's method answer it.
    pub(super) async fn answer(self, request: Request, state: RequestState) -> Response {
        let Some(route) = self.0 else { return unknown_route(request.uri().path()) };
        let Some(taken) = route.method(request.method()) else {
            return route.not_allowed(&request);
        };
        if taken.query == QueryKind::Refused
            && let Err(problem) = refuse_parameters(request.uri().query().unwrap_or_default())
        {
            return problem.into_response();
        }
        let is_head = request.method() == Method::HEAD;
        let response = taken.handler.call(request, state).await;
        if is_head { without_body(response) } else { response }
    }
}

fn unknown_route(path: &str) -> Response {
    let detail = format!("{path} does not exist: /docs and /openapi.json list all paths");
    Problem::new(ProblemKind::UnknownRoute, detail).into_response()
}

/// Returns the answer to a HEAD, with the length of the body that a GET would have had.
fn without_body(mut response: Response) -> Response {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    response.map(|_| Body::empty())
}

/// All paths of the service. They are built once and never freed.
#[derive(Debug, Default)]
pub(super) struct RouteTable(matchit::Router<&'static Route>);

impl RouteTable {
    pub(super) fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut routes: HashMap<String, Route> = HashMap::new();
        for endpoint in endpoints {
            let Endpoint { path, method, access, routine, body, query, handler, .. } = endpoint;
            let route = routes.entry(path).or_insert_with_key(|path| Route {
                path: path.as_str().into(),
                routine,
                body,
                methods: Vec::new(),
            });
            route.methods.push(RouteMethod { method, access, query, handler });
        }
        let mut table = Self::default();
        for (path, route) in routes {
            let added = table.0.insert(path, &*Box::leak(Box::new(route)));
            debug_assert!(added.is_ok(), "{added:?}");
        }
        table
    }

    /// Returns the route of a path, and the values of its parameters.
    pub(super) fn find(&self, path: &str) -> (RouteMatch, Vec<PathValue>) {
        match self.0.at(path) {
            Ok(Match { value, params }) => (RouteMatch(Some(value)), values(&params)),
            Err(_) => (RouteMatch(None), Vec::new()),
        }
    }
}

fn values(params: &Params<'_, '_>) -> Vec<PathValue> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(Into::into);
    params.iter().map(|(_, text)| decoded(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RouteTable {
        let endpoint = |path| Endpoint::undescribed(path, RouteHandler::new(async || ()));
        let mut mark = endpoint("/things");
        mark.method = Method::PUT;
        let things = endpoint("/things").scope(Scope::Ingest);
        let endpoints = [
            things,
            mark,
            endpoint("/things/{id}"),
            endpoint("/health").public().routine(Routine::Probe),
        ];
        RouteTable::new(endpoints)
    }

    fn found(path: &str) -> RouteMatch {
        table().find(path).0
    }

    fn scope(method: &Method, path: &str) -> Option<Scope> {
        found(path).access(method).scope()
    }

    #[test]
    fn an_endpoint_takes_its_own_scope_or_operate_if_it_names_none() {
        assert_eq!(scope(&Method::GET, "/things"), Some(Scope::Ingest));
        assert_eq!(scope(&Method::HEAD, "/things"), Some(Scope::Ingest));
        assert_eq!(scope(&Method::PUT, "/things"), Some(Scope::Operate));
        assert_eq!(scope(&Method::GET, "/things/7"), Some(Scope::Operate));
        assert_eq!(scope(&Method::GET, "/health"), None);
    }

    #[test]
    fn a_path_without_an_endpoint_takes_the_scope_read_for_a_get_and_operate_otherwise() {
        assert_eq!(scope(&Method::GET, "/nothing"), Some(Scope::Read));
        assert_eq!(scope(&Method::POST, "/nothing"), Some(Scope::Operate));
        assert_eq!(scope(&Method::DELETE, "/things"), Some(Scope::Operate));
        assert_eq!(scope(&Method::DELETE, "/health"), None);
    }

    #[test]
    fn a_path_has_the_name_of_its_route() {
        assert_eq!(found("/things/7").path(), Some("/things/{id}"));
        assert_eq!(found("/nothing").path(), None);
        assert_eq!(found("/health").routine(), Routine::Probe);
        assert_eq!(found("/things").routine(), Routine::No);
    }

    #[test]
    fn the_values_of_parameters_are_without_percent_encoding() {
        let values = |path: &str| table().find(path).1;
        assert_eq!(values("/things"), []);
        assert_eq!(values("/things/a%2Fb%20c"), [Some("a/b c".into())]);
        assert_eq!(values("/things/%FF"), [None]);
    }
}
