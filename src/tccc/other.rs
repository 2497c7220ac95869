//! Actions that nobody has documented yet, and bodies that are no JSON object.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::fields::Fields;
use super::json::Member;
use super::notes::{Extra, ExtraParts, Path, Warning, Warnings};

/// An action that is not known: the whole body is under `extra`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Other<'a> {
    /// The contact-centre instance, where the body names one. Vendor: `SdkAppId`.
    pub sdk_app_id: Option<i64>,
    /// The session, where the body names one. Vendor: `SessionId`.
    pub session_id: Option<Cow<'a, str>>,
    /// Fields that could not be read as documented; each is null.
    pub warnings: Vec<Warning>,
    /// The whole body, verbatim; a body that is not a JSON object is a string under `body`.
    pub extra: Extra,
}

pub(super) fn read<'a>(members: Vec<Member<'a>>, warnings: &mut Warnings) -> Other<'a> {
    // What these two refuse is in the whole body anyway.
    let mut refused = ExtraParts::default();
    let mut named = Fields::new(members.clone(), warnings, &mut refused);
    let (sdk_app_id, session_id) = (named.integer("SdkAppId"), named.text("SessionId"));
    let mut whole = ExtraParts::default();
    let mut fields = Fields::new(members, warnings, &mut whole);
    Other { sdk_app_id, session_id, warnings: fields.warnings(), extra: fields.rest() }
}

/// `body_literal` is the body as a JSON string.
pub(super) fn unreadable<'a>(body_literal: &'a str, warnings: &mut Warnings) -> Other<'a> {
    warnings.push(&Path::ROOT.member("\"body\""), "not a JSON object");
    let mut extra = ExtraParts::default();
    extra.push_own("\"body\"", body_literal);
    Other { sdk_app_id: None, session_id: None, warnings: warnings.take_listed(), extra: extra.finish() }
}
