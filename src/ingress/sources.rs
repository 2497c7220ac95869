//! The addresses that pushes come to, in a table that can be replaced as a whole while it is in use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::join_all;
use tokio::sync::watch;

use super::auth::{Auth, AuthError};
use crate::config::model;
use crate::metrics::{Metrics, SourceMetrics};
use crate::names::SourceName;
use crate::tccc::SPECIFIED_SEAT;

/// The sources of the config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("source {source_name}: {error}")]
    Auth { source_name: SourceName, error: AuthError },
    #[error("sources {first} and {second} have the same path {path}")]
    SamePath { first: SourceName, second: SourceName, path: String },
}

/// The table in use; clones share it.
#[derive(Clone)]
pub struct Sources {
    table: Arc<ArcSwap<Table>>,
    /// Changes with the table.
    replaced: watch::Sender<()>,
    metrics: Metrics,
}

type Table = HashMap<String, Place>;

/// What is done at a path.
#[derive(Clone)]
pub(super) enum Place {
    Pushes(Arc<Route>),
    /// Tokens for pushes to that source.
    Tokens(Arc<Route>),
}

/// One source, ready to judge pushes.
pub struct Route {
    pub name: SourceName,
    pub auth: Auth,
    pub metrics: SourceMetrics,
    actions: Option<Vec<String>>,
}

impl Sources {
    pub fn new(sources: &BTreeMap<SourceName, model::Source>, metrics: &Metrics) -> Result<Self, SourceError> {
        let table = table_of(sources, metrics, &Table::new())?;
        let (table, replaced) = (Arc::new(ArcSwap::from_pointee(table)), watch::Sender::new(()));
        Ok(Self { table, replaced, metrics: metrics.clone() })
    }

    /// Replaces all sources, secrets resolved anew. On an error the earlier ones stay. Requests in hand end as they began.
    pub fn replace(&self, sources: &BTreeMap<SourceName, model::Source>) -> Result<(), SourceError> {
        self.table.store(Arc::new(table_of(sources, &self.metrics, &self.table.load())?));
        self.replaced.send_replace(());
        Ok(())
    }

    /// What is at `path`, which is compared as it stands in the request line.
    pub(super) fn at(&self, path: &str) -> Option<Place> {
        self.table.load().get(path).cloned()
    }

    /// Keeps the keys of foreign providers fresh, of whatever sources there are. Never ends.
    pub(super) async fn keep_fresh(&self) {
        let mut replaced = self.replaced.subscribe();
        loop {
            let routes: Vec<Arc<Route>> = self.table.load().values().filter_map(Place::pushes).cloned().collect();
            let keep = async {
                join_all(routes.iter().map(|route| route.auth.keep_fresh(&route.name))).await;
                std::future::pending().await
            };
            tokio::select! {
                () = keep => {}
                changed = replaced.changed() => changed.expect("this holds the sender"),
            }
        }
    }
}

impl Place {
    fn pushes(&self) -> Option<&Arc<Route>> {
        match self {
            Self::Pushes(route) => Some(route),
            Self::Tokens(_) => None,
        }
    }

    fn route(&self) -> &Arc<Route> {
        match self {
            Self::Pushes(route) | Self::Tokens(route) => route,
        }
    }
}

impl Route {
    /// Whether pushes of `action` are taken. A routing query is never one.
    pub fn takes(&self, action: &str) -> bool {
        !action.eq_ignore_ascii_case(SPECIFIED_SEAT)
            && self.actions.as_ref().is_none_or(|taken| taken.iter().any(|taken| taken.eq_ignore_ascii_case(action)))
    }
}

fn table_of(
    sources: &BTreeMap<SourceName, model::Source>,
    metrics: &Metrics,
    former: &Table,
) -> Result<Table, SourceError> {
    let mut table = Table::new();
    for (name, source) in sources {
        let former = former.values().map(Place::route).find(|route| route.name == *name).map(|route| &route.auth);
        let auth = Auth::new(&source.auth, name, former)
            .map_err(|error| SourceError::Auth { source_name: name.clone(), error })?;
        let route = Route { name: name.clone(), auth, metrics: metrics.source(name), actions: source.actions.clone() };
        let route = Arc::new(route);
        place(&mut table, &source.path, Place::Pushes(Arc::clone(&route)))?;
        if let model::Auth::OAuth2(oauth2) = &source.auth {
            place(&mut table, &oauth2.token_path, Place::Tokens(route))?;
        }
    }
    Ok(table)
}

fn place(table: &mut Table, path: &str, place: Place) -> Result<(), SourceError> {
    let second = place.route().name.clone();
    match table.insert(path.to_owned(), place) {
        None => Ok(()),
        Some(first) => Err(SourceError::SamePath { first: first.route().name.clone(), second, path: path.to_owned() }),
    }
}
