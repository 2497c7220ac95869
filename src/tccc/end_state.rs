//! How a session ended: the sender's word, and a small closed class that holds when new words appear (PROTOCOL.md §5).

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

/// How a session, or one participant's part in it, ended.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct EndState<'a> {
    /// The sender's word, as sent: an open set.
    pub raw: Cow<'a, str>,
    /// The class of the word.
    pub class: EndStateClass,
}

/// The classes of end states: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndStateClass {
    /// People, or a person and an assistant, spoke to each other.
    Answered,
    /// The customer gave up before that.
    Abandoned,
    /// The menu was all that the customer needed.
    SelfServed,
    /// The other side could not be reached.
    Unreachable,
    /// A rule or a carrier forbade it.
    Blocked,
    /// Something broke.
    Failed,
    /// Unknown, or a word that is not in the sender's list.
    Other,
}

const WORDS: [(EndStateClass, &[&str]); 6] = [
    (
        EndStateClass::Answered,
        &[
            "ok",
            "seatForward",
            "outboundForward",
            "functionCallHangup",
            "maxCallDurationReached",
            "userInactivity",
            "callTerminatedByAPI",
            "userHangupDuringAiCall",
            "aiAgentEndCall",
            "autoFinished",
        ],
    ),
    (
        EndStateClass::Abandoned,
        &[
            "ivrGiveUp",
            "waitingGiveUp",
            "ringingGiveUp",
            "seatGiveUp",
            "callerCancel",
            "callerCancelWhileRing",
            "callerCancelWithoutRing",
        ],
    ),
    (EndStateClass::SelfServed, &["ivrEnd"]),
    (
        EndStateClass::Unreachable,
        &[
            "unconnected",
            "notAnswer",
            "userReject",
            "powerOff",
            "numberNotExist",
            "busy",
            "outOfCredit",
            "notInService",
            "numberInvalid",
            "voiceMailReached",
            "promptCallForwarding",
            "callReminder",
            "noSeatOnline",
            "notWorkTime",
            "clientTimeout",
            "callConflict",
        ],
    ),
    (
        EndStateClass::Blocked,
        &[
            "blackList",
            "restrictedCallee",
            "tooManyRequest",
            "restrictedArea",
            "restrictedTime",
            "carrierBlocked",
            "callRestricted",
            "calleeRestricted",
            "areaRestricted",
        ],
    ),
    (
        EndStateClass::Failed,
        &["error", "operatorError", "clientError", "voipClientError", "asrError", "llmasrError", "ttsError"],
    ),
];

impl<'a> EndState<'a> {
    /// Words are compared without case. Codes differ per channel, so a number is no word: its class is `other`.
    pub(super) fn new(raw: Cow<'a, str>) -> Self {
        let class = WORDS
            .iter()
            .find(|(_, words)| words.iter().any(|word| word.eq_ignore_ascii_case(&raw)))
            .map_or(EndStateClass::Other, |(class, _)| *class);
        Self { raw, class }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_class_whatever_their_case() {
        for (word, class) in [
            ("ok", EndStateClass::Answered),
            ("SEATFORWARD", EndStateClass::Answered),
            ("ringingGiveUp", EndStateClass::Abandoned),
            ("ivrEnd", EndStateClass::SelfServed),
            ("numbernotexist", EndStateClass::Unreachable),
            ("blackList", EndStateClass::Blocked),
            ("llmasrError", EndStateClass::Failed),
        ] {
            assert_eq!(EndState::new(word.into()).class, class, "{word}");
        }
    }

    #[test]
    fn new_words_and_codes_are_other() {
        for word in ["unknown", "aBrandNewState", "108", "109", "0", "ok "] {
            assert_eq!(EndState::new(word.into()).class, EndStateClass::Other, "{word}");
        }
    }
}
