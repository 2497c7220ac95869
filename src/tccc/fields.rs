//! An object of the sender, field by field: what is asked for by name is read leniently, the rest goes to `extra`.
//!
//! A name is compared without case. Of members with exactly the same name the last counts and the others are gone, as JSON readers
//! do; of members whose names differ in case the last counts and the others stay under `extra`. Null and an empty string are the same as absent.

use std::borrow::Cow;
use std::collections::HashSet;

use super::json::{self, Member};
use super::notes::{Extra, ExtraParts, Path, Warning, Warnings};
use super::values::{self, Time};

/// Longer arrays are kept whole under `extra`: each element becomes far more text than it was.
pub(super) const ELEMENTS_MAX: usize = 1_000;

/// The members of one object, and where their remarks go.
pub(super) struct Fields<'a, 'n> {
    members: Vec<Option<Member<'a>>>,
    path: Path<'n>,
    warnings: &'n mut Warnings,
    extra: &'n mut ExtraParts<'a>,
}

/// A value, where it stands, and where remarks on it go.
pub(super) struct Place<'a, 'n> {
    text: &'a str,
    path: Path<'n>,
    warnings: &'n mut Warnings,
    extra: &'n mut ExtraParts<'a>,
}

impl<'a, 'n> Fields<'a, 'n> {
    pub(super) fn new(members: Vec<Member<'a>>, warnings: &'n mut Warnings, extra: &'n mut ExtraParts<'a>) -> Self {
        Self { members: members.into_iter().map(Some).collect(), path: Path::ROOT, warnings, extra }
    }

    /// The value of the last member called `name`, unless it is null or an empty string.
    pub(super) fn take(&mut self, name: &str) -> Option<Place<'a, '_>> {
        let at = self.members.iter().rposition(|member| member.as_ref().is_some_and(|member| member.is_named(name)))?;
        let taken = self.members[at].take()?;
        for earlier in &mut self.members[..at] {
            if earlier.as_ref().is_some_and(|earlier| earlier.name == taken.name) {
                *earlier = None;
            }
        }
        if matches!(taken.value, "null" | "\"\"") {
            return None;
        }
        Some(Place {
            text: taken.value,
            path: self.path.member(taken.key),
            warnings: &mut *self.warnings,
            extra: &mut *self.extra,
        })
    }

    pub(super) fn text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        self.take(name)?.text()
    }

    pub(super) fn integer(&mut self, name: &str) -> Option<i64> {
        self.take(name)?.read(values::integer, "not an integer of 64 bits")
    }

    pub(super) fn decimal(&mut self, name: &str) -> Option<f64> {
        self.take(name)?.read(|text| text.parse().ok().filter(|number: &f64| number.is_finite()), "not a number")
    }

    /// A time in Unix seconds.
    pub(super) fn seconds(&mut self, name: &str) -> Option<Time> {
        self.take(name)?.read(values::seconds, "not a time in Unix seconds").flatten()
    }

    /// A time in Unix milliseconds.
    pub(super) fn milliseconds(&mut self, name: &str) -> Option<Time> {
        self.take(name)?.read(values::milliseconds, "not a time in Unix milliseconds").flatten()
    }

    pub(super) fn object<T>(&mut self, name: &str, read: fn(&mut Fields<'a, '_>) -> T) -> Option<T> {
        self.take(name)?.object(read)
    }

    pub(super) fn array<T>(&mut self, name: &str, read: fn(Place<'a, '_>) -> T) -> Option<Vec<T>> {
        self.take(name)?.array(read)
    }

    /// What nobody asked for goes to `extra`, under its own name where the object has an `extra`, else under its path.
    fn leave_rest(&mut self) {
        let holds_extra = self.path.holds_extra();
        let mut seen = HashSet::new();
        let mut rest: Vec<Member<'a>> = self.members.drain(..).flatten().collect();
        if rest.len() > 1 {
            rest.reverse();
            rest.retain(|member| seen.insert(member.name.clone()));
            rest.reverse();
        }
        for member in rest {
            if holds_extra {
                self.extra.push_own(member.key, member.value);
            } else {
                self.extra.push(&self.path.member(member.key), member.value);
            }
        }
    }

    /// The `extra` of an object that has one. Asked for last: nothing is left to be read after it.
    pub(super) fn rest(&mut self) -> Extra {
        self.leave_rest();
        std::mem::take(self.extra).finish()
    }

    /// The `warnings` of the event so far.
    pub(super) fn warnings(&mut self) -> Vec<Warning> {
        self.warnings.take_listed()
    }
}

impl<'a> Place<'a, '_> {
    fn refuse(self, problem: &'static str) {
        self.warnings.push(&self.path, problem);
        self.extra.push(&self.path, self.text);
    }

    /// Keeps the value under `extra` as well, for it says more than what was made of it.
    pub(super) fn keep(self) {
        self.extra.push(&self.path, self.text);
    }

    /// Whether it is an array of just these texts.
    pub(super) fn is_array_of<'t>(&self, texts: impl ExactSizeIterator<Item = Option<&'t str>>) -> bool {
        let Ok(Some(elements)) = json::elements(self.text, ELEMENTS_MAX) else { return false };
        elements.len() == texts.len()
            && elements.into_iter().zip(texts).all(|(element, text)| values::text(element).as_deref() == text)
    }

    pub(super) fn is_object(&self) -> bool {
        self.text.starts_with('{')
    }

    pub(super) fn is_null(&self) -> bool {
        self.text == "null"
    }

    /// A string, or a number as its digits stand; an empty string is none.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        if self.is_null() {
            return None;
        }
        match values::text(self.text) {
            Some(text) => Some(text).filter(|text| !text.is_empty()),
            None => {
                self.refuse("not a string");
                None
            }
        }
    }

    /// A number, or a string that holds one; an empty string is none.
    pub(super) fn read<T>(self, parse: fn(&str) -> Option<T>, problem: &'static str) -> Option<T> {
        let text = values::text(self.text);
        if text.as_deref() == Some("") {
            return None;
        }
        let value = text.as_deref().and_then(parse);
        if value.is_none() {
            self.refuse(problem);
        }
        value
    }

    /// As [`Place::read`]; a value of which `says_less` holds is kept under `extra` too.
    pub(super) fn read_keeping<T>(
        self,
        parse: fn(&str) -> Option<T>,
        problem: &'static str,
        says_less: fn(&T) -> bool,
    ) -> Option<T> {
        let Place { text, path, warnings, extra } = self;
        let value = Place { text, path, warnings, extra: &mut *extra }.read(parse, problem);
        if value.as_ref().is_some_and(says_less) {
            extra.push(&path, text);
        }
        value
    }

    /// What an object says through `read`; what `read` does not ask for goes to the `extra` above.
    pub(super) fn object<T>(self, read: fn(&mut Fields<'a, '_>) -> T) -> Option<T> {
        let Some(members) = self.members() else {
            self.refuse("not an object");
            return None;
        };
        let Place { path, warnings, extra, .. } = self;
        let mut fields = Fields { members, path, warnings, extra };
        let value = read(&mut fields);
        fields.leave_rest();
        Some(value)
    }

    /// As [`Place::object`], for an object that has an `extra` of its own: `read` asks for it with [`Fields::rest`].
    pub(super) fn object_with_extra<T>(self, read: fn(&mut Fields<'a, '_>) -> T) -> Option<T> {
        let Some(members) = self.members() else {
            self.refuse("not an object");
            return None;
        };
        let mut extra = ExtraParts::default();
        let path = self.path.holding_extra();
        Some(read(&mut Fields { members, path, warnings: self.warnings, extra: &mut extra }))
    }

    /// What the elements of an array say through `read`.
    pub(super) fn array<T>(self, read: fn(Place<'a, '_>) -> T) -> Option<Vec<T>> {
        let Place { text, path, warnings, extra } = self;
        let problem = match json::elements(text, ELEMENTS_MAX).ok().filter(|_| text.starts_with('[')) {
            Some(Some(elements)) => {
                let places = elements.into_iter().enumerate().map(|(index, text)| {
                    read(Place { text, path: path.element(index), warnings: &mut *warnings, extra: &mut *extra })
                });
                return Some(places.collect());
            }
            Some(None) => "too many elements",
            None => "not an array",
        };
        Place { text, path, warnings, extra }.refuse(problem);
        None
    }

    fn members(&self) -> Option<Vec<Option<Member<'a>>>> {
        if !self.is_object() {
            return None;
        }
        json::members(self.text).ok().map(|members| members.into_iter().map(Some).collect())
    }
}
