//! The scripts that run inside Redis, each one atomic act on one shard.

use redis::{Cmd, Script, ToRedisArgs, cmd};

/// Every script.
pub(super) struct Scripts {
    pub accept: Source,
    /// [`Self::accept`] for a server without memory: it can still say what is a duplicate, and take what must not be refused.
    pub accept_without_memory: Source,
    pub adopt: Source,
    pub register: Source,
    pub forget: Source,
    pub lease: Source,
    pub renew: Source,
    pub release: Source,
    pub settle: Source,
    pub refuse: Source,
    pub update: Source,
    pub purge: Source,
    pub trim: Source,
    pub present: Source,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let accept = include_str!("scripts/accept.lua");
        Self {
            accept: Source::new(accept),
            accept_without_memory: Source::new(&accept.replacen("#!lua", "#!lua flags=allow-oom", 1)),
            adopt: Source::new(include_str!("scripts/adopt.lua")),
            register: Source::new(include_str!("scripts/register.lua")),
            forget: Source::new(include_str!("scripts/forget.lua")),
            lease: Source::new(include_str!("scripts/lease.lua")),
            renew: Source::new(include_str!("scripts/renew.lua")),
            release: Source::new(include_str!("scripts/release.lua")),
            settle: Source::new(include_str!("scripts/settle.lua")),
            refuse: Source::new(include_str!("scripts/refuse.lua")),
            update: Source::new(include_str!("scripts/update.lua")),
            purge: Source::new(include_str!("scripts/purge.lua")),
            trim: Source::new(include_str!("scripts/trim.lua")),
            present: Source::new(include_str!("scripts/present.lua")),
        }
    }
}

/// A script's text, and its hash, under which the server knows it once it was sent.
pub(super) struct Source {
    text: String,
    hash: String,
}

impl Source {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), hash: Script::new(text).get_hash().to_owned() }
    }

    /// The call by its hash, which a server that does not know it refuses with NOSCRIPT.
    pub(super) fn call(&self, keys: &[String], args: &[Arg]) -> Cmd {
        Self::with(cmd("EVALSHA"), &self.hash, keys, args)
    }

    /// The call with the whole text, from which the server learns the hash.
    pub(super) fn teach(&self, keys: &[String], args: &[Arg]) -> Cmd {
        Self::with(cmd("EVAL"), &self.text, keys, args)
    }

    fn with(mut command: Cmd, what: &str, keys: &[String], args: &[Arg]) -> Cmd {
        command.arg(what).arg(keys.len()).arg(keys).arg(args);
        command
    }
}

/// An argument of a script.
#[derive(Debug, Clone)]
pub(super) enum Arg {
    Number(u64),
    Text(String),
    Bytes(bytes::Bytes),
}

impl ToRedisArgs for Arg {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        match self {
            Self::Number(number) => out.write_arg_fmt(number),
            Self::Text(text) => out.write_arg(text.as_bytes()),
            Self::Bytes(bytes) => out.write_arg(bytes),
        }
    }
}

impl From<u64> for Arg {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for Arg {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}
