//! The addresses that pushes come to, in a table that can be replaced as a whole while it is in use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sink_api::settings::SecretError;

use super::auth::Auth;
use crate::config::model;
use crate::metrics::{Metrics, SourceMetrics};
use crate::names::SourceName;
use crate::tccc::SPECIFIED_SEAT;

/// The sources of the config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("source {source_name}: {error}")]
    Secret { source_name: SourceName, error: SecretError },
    #[error("sources {first} and {second} have the same path {path}")]
    SamePath { first: SourceName, second: SourceName, path: String },
}

/// The table in use; clones share it.
#[derive(Clone)]
pub struct Sources {
    table: Arc<ArcSwap<HashMap<String, Arc<Route>>>>,
    metrics: Metrics,
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
        let table = table_of(sources, metrics)?;
        Ok(Self { table: Arc::new(ArcSwap::from_pointee(table)), metrics: metrics.clone() })
    }

    /// Replaces all sources, secrets resolved anew. On an error the earlier ones stay. Requests in hand end as they began.
    pub fn replace(&self, sources: &BTreeMap<SourceName, model::Source>) -> Result<(), SourceError> {
        self.table.store(Arc::new(table_of(sources, &self.metrics)?));
        Ok(())
    }

    /// The source at `path`, which is compared as it stands in the request line.
    pub(super) fn at(&self, path: &str) -> Option<Arc<Route>> {
        self.table.load().get(path).cloned()
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
) -> Result<HashMap<String, Arc<Route>>, SourceError> {
    let mut table: HashMap<String, Arc<Route>> = HashMap::new();
    for (name, source) in sources {
        let auth = Auth::new(&source.auth).map_err(|error| SourceError::Secret { source_name: name.clone(), error })?;
        let route = Route { name: name.clone(), auth, metrics: metrics.source(name), actions: source.actions.clone() };
        if let Some(first) = table.insert(source.path.clone(), Arc::new(route)) {
            let (first, second) = (first.name.clone(), name.clone());
            return Err(SourceError::SamePath { first, second, path: source.path.clone() });
        }
    }
    Ok(table)
}
