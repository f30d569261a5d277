//! Finds the route of a request once, for all layers.

use std::collections::HashMap;

use axum::http::{Method, Request};

use crate::{
    auth::Scope,
    http::endpoints::{Access, BodyKind, Endpoint, Routine},
};

/// A path of the service.
#[derive(Debug)]
pub(super) struct Route {
    /// It has the names of the parameters: there are as many paths of requests as anomalies.
    pub(super) path: Box<str>,
    pub(super) routine: Routine,
    pub(super) body: BodyKind,
    methods: Vec<(Method, Access)>,
}

impl Route {
    /// Returns who may call the method. A method that the path does not take is refused later, so
    /// that only permitted callers learn which methods there are.
    fn access(&self, method: &Method) -> Access {
        // A GET answers HEAD too.
        let served = if method == Method::HEAD { &Method::GET } else { method };
        let mut accesses = self.methods.iter();
        if let Some((_, access)) = accesses.clone().find(|(method, _)| method == served) {
            return *access;
        }
        if accesses.all(|(_, access)| *access == Access::Public) {
            return Access::Public;
        }
        unnamed(method)
    }
}

/// Returns who may call what no endpoint names: callers with the scope `operate`, but for reads,
/// which answer every reader that there is nothing.
fn unnamed(method: &Method) -> Access {
    match *method {
        Method::GET | Method::HEAD => Access::Scope(Scope::Read),
        _ => Access::Scope(Scope::Operate),
    }
}

/// The route of a request; `None` where its path has none. It is an extension of each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteMatch(pub(super) Option<&'static Route>);

impl RouteMatch {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        request.extensions().get().copied().unwrap_or(Self(None))
    }

    pub(super) fn access(self, method: &Method) -> Access {
        self.0.map_or_else(|| unnamed(method), |route| route.access(method))
    }

    pub(super) fn path(self) -> Option<&'static str> {
        self.0.map(|route| &*route.path)
    }

    pub(super) fn methods(self) -> Vec<&'static str> {
        let methods = self.0.into_iter().flat_map(|route| &route.methods);
        methods.map(|(method, _)| method.as_str()).collect()
    }

    pub(super) fn body(self) -> BodyKind {
        self.0.map_or(BodyKind::Call, |route| route.body)
    }

    pub(super) fn routine(self) -> Routine {
        self.0.map_or(Routine::No, |route| route.routine)
    }
}

/// All paths of the service. Built once, and never freed.
#[derive(Debug, Default)]
pub(super) struct RouteTable(matchit::Router<&'static Route>);

impl RouteTable {
    pub(super) fn new(endpoints: &[Endpoint]) -> Self {
        let mut routes: HashMap<&str, Route> = HashMap::new();
        for endpoint in endpoints {
            let route = routes.entry(&endpoint.path).or_insert_with(|| Route {
                path: endpoint.path.as_str().into(),
                routine: endpoint.routine,
                body: endpoint.body,
                methods: Vec::new(),
            });
            route.methods.push((endpoint.method.clone(), endpoint.access));
        }
        let mut table = Self::default();
        for (path, route) in routes {
            // The router itself refuses two paths that are alike.
            let _ = table.0.insert(path, &*Box::leak(Box::new(route)));
        }
        table
    }

    /// Notes the route of a request on the request.
    pub(super) fn note<B>(&self, request: &mut Request<B>) {
        let route = self.0.at(request.uri().path()).ok().map(|found| *found.value);
        request.extensions_mut().insert(RouteMatch(route));
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    fn table() -> RouteTable {
        let endpoint = |path| Endpoint::undescribed(path, get(async || ()));
        let mut mark = endpoint("/things");
        mark.method = Method::PUT;
        let things = endpoint("/things").scope(Scope::Ingest);
        let endpoints = [
            things,
            mark,
            endpoint("/things/{id}"),
            endpoint("/health").public().routine(Routine::Probe),
        ];
        RouteTable::new(&endpoints)
    }

    fn found(path: &str) -> RouteMatch {
        let mut request = Request::new(axum::body::Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        table().note(&mut request);
        RouteMatch::of(&request)
    }

    fn scope(method: &Method, path: &str) -> Option<Scope> {
        found(path).access(method).scope()
    }

    #[test]
    fn an_endpoint_takes_its_own_scope_and_operate_where_it_names_none() {
        assert_eq!(scope(&Method::GET, "/things"), Some(Scope::Ingest));
        assert_eq!(scope(&Method::HEAD, "/things"), Some(Scope::Ingest));
        assert_eq!(scope(&Method::PUT, "/things"), Some(Scope::Operate));
        assert_eq!(scope(&Method::GET, "/things/7"), Some(Scope::Operate));
        assert_eq!(scope(&Method::GET, "/health"), None);
    }

    #[test]
    fn what_no_endpoint_names_is_read_by_readers_and_else_takes_the_most() {
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
}
