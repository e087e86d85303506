//! HDP413 prediction-disagrees: configuration says one thing, the packets another.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code},
    ended::Ended,
    verdict::{cause, vantage, worst},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::PredictionDisagrees, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"What was measured is not what the configuration predicts. The measurement stands.

The prediction follows Cilium's code from the settings, maps and addresses that were read. It knows
nothing of network policies, firewalls and upstreams, so it may say "answered" where one of them is
in the way: the root is then named by its own finding. A leak or drop where an answer was
predicted, or an answer where a leak was, means that a fact is stale (HDP203, HDP210), or that this
release behaves differently from the measured ones.

By hand: `hostdns-probe check -v` shows every step of the prediction and every trace: the first
that does not fit is the place.

Fix: nothing by itself. If no other finding explains the difference, please report it, with the JSON
report.

Versions: 1.15 to 1.19.0-pre.0 are predicted; of newer ones nothing is said.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let pods: Vec<_> = vantage::pods(case);
    let Some(predicted) = case.prediction.ended else {
        return Vec::new();
    };
    let Some(worst) = worst(case, &pods).filter(|worst| worst.ended != Ended::Unknown && worst.ended != predicted)
    else {
        return Vec::new();
    };
    // Policies, firewalls, upstreams and what listens are no part of the prediction's story: another root explains it.
    let explained = predicted == Ended::Answered
        && !matches!(worst.ended, Ended::Leaked)
        && cause::root(case, worst).is_none_or(|root| root != Code::UnknownAddressDropped);
    let severity = if explained { Severity::Info } else { Severity::Warn };
    let title = format!("Configuration predicts {predicted}, measured was {}. The measurement stands.", worst.ended);
    vec![
        Finding::new(Code::PredictionDisagrees, severity, title)
            .evidence(worst.evidence())
            .evidences(case.prediction.because.iter().map(|line| format!("predicted because {line}"))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene},
        ended::Direction,
    };

    fn scene(predicted: Option<Ended>, fate: Fate) -> Option<Severity> {
        let mut scene = Scene::new().coredns(fate);
        scene.prediction.ended = predicted;
        scene.finding("HDP413").map(|finding| finding.severity)
    }

    #[test]
    fn compares_with_the_pods() {
        assert_eq!(scene(Some(Ended::Answered), Fate::Answered), None);
        assert_eq!(scene(None, Fate::Leaked), None);
        assert_eq!(scene(Some(Ended::Leaked), Fate::Answered), Some(Severity::Warn));
        assert_eq!(scene(Some(Ended::Answered), Fate::Leaked), Some(Severity::Warn));
        let policy = Fate::Dropped("TC_INGRESS", Direction::Request, Some(133));
        assert_eq!(scene(Some(Ended::Answered), policy), Some(Severity::Info));
    }
}
