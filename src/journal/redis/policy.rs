//! What the servers really promise, beside what the config asks for.

use std::collections::BTreeMap;
use std::fmt;

use redis::{Value, cmd};

use super::connect::{Link, info_field};
use super::faults::{array_of, text_of};
use super::options::{Durability, Options};

/// Versions that the scripts need.
const MAJOR_MIN: u32 = 7;
const SETTINGS: [&str; 5] =
    ["appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy", "min-replicas-to-write"];

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Promise {
    /// `Redis 7.0.15`, `Valkey 9.1.2`
    pub server: String,
    major: u32,
    has_waitaof: bool,
    pub is_aof_on: bool,
    pub replicas: u32,
    /// `None` where the user is not allowed to ask.
    settings: Option<BTreeMap<String, String>>,
}

impl Promise {
    /// Asks the server at `link`.
    ///
    /// # Errors
    /// Why it does not answer INFO.
    pub async fn of(link: &mut Link) -> Result<Self, String> {
        let mut info = String::new();
        for section in ["server", "persistence", "replication"] {
            let said = link.ask(cmd("INFO").arg(section)).await.map_err(|error| super::connect::say(&error))?;
            info.push_str(&text_of(&said).unwrap_or_default());
        }
        let has_waitaof = match link.ask(cmd("COMMAND").arg("INFO").arg("WAITAOF")).await {
            Ok(said) => array_of(said).is_ok_and(|known| known.iter().any(|command| *command != Value::Nil)),
            // Not allowed to ask; the first WAITAOF will tell.
            Err(_) => true,
        };
        let redis_version = info_field(&info, "redis_version").unwrap_or("0");
        let server = match info_field(&info, "valkey_version") {
            Some(version) => format!("Valkey {version}"),
            None => format!("Redis {redis_version}"),
        };
        let major = redis_version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        let replicas = info_field(&info, "connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0);
        let is_aof_on = info_field(&info, "aof_enabled") == Some("1");
        Ok(Self { server, major, has_waitaof, is_aof_on, replicas, settings: settings(link).await })
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.as_ref()?.get(name).map(String::as_str)
    }

    /// What it promises less than `options` ask for: each with the setting to change.
    pub fn shortfalls(&self, options: &Options) -> Vec<String> {
        let mut short = Vec::new();
        if self.major < MAJOR_MIN {
            short.push(format!("{}: 7.0 or newer is needed", self.server));
        }
        if options.durability == Durability::Relaxed {
            return short;
        }
        let mut need = |setting: &str, fits: &dyn Fn(&str) -> bool, wanted: &str| match self.setting(setting) {
            Some(found) if !fits(found) => short.push(format!("{setting} is {found:?}; {wanted}")),
            _ => {}
        };
        need(
            "maxmemory",
            &|bytes| bytes != "0",
            "set a limit, so that Redis refuses pushes before the machine runs out",
        );
        need(
            "maxmemory-policy",
            &|policy| policy == "noeviction",
            "set it to noeviction: anything else throws accepted pushes away",
        );
        if options.durability == Durability::Fsync {
            need("appendfsync", &|when| when == "always", "durability = \"fsync\" needs appendfsync always");
            need("no-appendfsync-on-rewrite", &|set| set == "no", "set it to no: else a rewrite suspends the syncs");
        }
        if options.durability == Durability::Replicated {
            let some = |count: &str| count.parse::<u32>().is_ok_and(|count| count >= 1);
            need(
                "min-replicas-to-write",
                &some,
                "set it to 1 or more, so that a master that is cut off stops taking pushes",
            );
        }
        if !self.is_aof_on {
            short.push("appendonly is \"no\"; set it to yes: else a restart loses everything".to_owned());
        }
        let wants_replicas = matches!(options.durability, Durability::Replicated | Durability::Strict);
        if wants_replicas && self.replicas < options.replicas {
            let (found, wanted) = (self.replicas, options.replicas);
            short.push(format!(
                "{found} replicas are connected; journal.redis.replicas = {wanted} of them must confirm"
            ));
        }
        if options.durability == Durability::Strict && !self.has_waitaof {
            short.push(format!("{} has no WAITAOF; durability = \"strict\" needs Redis 7.2 or Valkey", self.server));
        }
        if self.settings.is_none() {
            short.push(format!(
                "CONFIG GET is not allowed, so {} cannot be looked at; allow it with +config|get",
                SETTINGS.join(", ")
            ));
        }
        short
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aof = match (self.is_aof_on, self.setting("appendfsync")) {
            (false, _) => "no append-only file".to_owned(),
            (true, when) => format!("appendfsync {}", when.unwrap_or("unknown")),
        };
        write!(f, "{}, {aof}, {} replicas", self.server, self.replicas)
    }
}

/// `None` where asking is not allowed.
async fn settings(link: &mut Link) -> Option<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    for name in SETTINGS {
        let said = link.ask(cmd("CONFIG").arg("GET").arg(name)).await.ok()?;
        let values = match said {
            Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
            other => array_of(other).ok()?,
        };
        if let [_, value] = values.as_slice() {
            settings.insert(name.to_owned(), text_of(value)?);
        }
    }
    Some(settings)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::options::{Mode, Place};
    use super::*;

    fn options(durability: Durability) -> Options {
        Options {
            place: Place::new(Mode::Standalone, Vec::new()),
            prefix: "t".to_owned(),
            shards: 8,
            durability,
            replicas: 1,
            replica_timeout: Duration::from_secs(1),
            allow_weaker: false,
            size_max: 1 << 20,
            dedup_window: Duration::from_secs(3600),
        }
    }

    fn promise(settings: &[(&str, &str)]) -> Promise {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let server = "Redis 7.0.15".to_owned();
        Promise { server, major: 7, has_waitaof: false, is_aof_on: true, replicas: 1, settings: Some(settings) }
    }

    #[test]
    fn a_server_that_syncs_every_write_promises_fsync() {
        let durable = promise(&[
            ("appendfsync", "always"),
            ("no-appendfsync-on-rewrite", "no"),
            ("maxmemory", "100"),
            ("maxmemory-policy", "noeviction"),
        ]);
        assert_eq!(durable.shortfalls(&options(Durability::Fsync)), [""; 0]);
        let strict = durable.shortfalls(&options(Durability::Strict)).join("\n");
        assert!(strict.contains("WAITAOF") && strict.lines().count() == 1, "{strict}");
    }

    #[test]
    fn every_shortfall_names_the_setting_to_change() {
        let mut weak = promise(&[
            ("appendfsync", "everysec"),
            ("no-appendfsync-on-rewrite", "yes"),
            ("maxmemory", "0"),
            ("maxmemory-policy", "allkeys-lru"),
            ("min-replicas-to-write", "0"),
        ]);
        (weak.is_aof_on, weak.replicas) = (false, 0);
        let said = weak.shortfalls(&options(Durability::Fsync)).join("\n");
        for setting in ["appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy"] {
            assert!(said.contains(setting), "{setting} is missing in {said}");
        }
        let said = weak.shortfalls(&options(Durability::Replicated)).join("\n");
        assert!(said.contains("min-replicas-to-write") && said.contains("0 replicas are connected"), "{said}");
        weak.settings = None;
        assert!(weak.shortfalls(&options(Durability::Fsync)).join("\n").contains("+config|get"));
        assert_eq!(weak.shortfalls(&options(Durability::Relaxed)), [""; 0]);
    }
}
