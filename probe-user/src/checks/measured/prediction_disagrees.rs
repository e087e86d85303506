//! HDP413 prediction-disagrees: configuration says one thing, the packets another.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code},
    ended::Ended,
    report::Prediction,
    verdict::{cause, outcome::Outcome, vantage, worst},
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
    let ways = [(vantage::pods(case), case.prediction), (vantage::coredns_on_host(case), case.prediction_on_host)];
    ways.iter().filter_map(|(outcomes, prediction)| disagreement(case, outcomes, prediction)).collect()
}

fn disagreement(case: &Case<'_>, outcomes: &[Outcome<'_>], prediction: &Prediction) -> Option<Finding> {
    let predicted = prediction.ended?;
    let worst = worst(case, outcomes).filter(|worst| worst.ended != Ended::Unknown && worst.ended != predicted)?;
    // Policies, firewalls, upstreams and what listens are no part of the prediction's story: another root explains it.
    let explained = predicted == Ended::Answered
        && !matches!(worst.ended, Ended::Leaked)
        && cause::root(case, worst).is_none_or(|root| root != Code::UnknownAddressDropped);
    let severity = if explained { Severity::Info } else { Severity::Warn };
    let title = format!("Configuration predicts {predicted}, measured was {}. The measurement stands.", worst.ended);
    Some(
        Finding::new(Code::PredictionDisagrees, severity, title)
            .evidence(worst.evidence())
            .evidences(prediction.because.iter().map(|line| format!("predicted: {line}"))),
    )
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
    fn each_way_has_its_own_prediction() {
        use crate::{facts::Transport::Udp, query::VantageKind};
        let found = |pods, on_host| {
            let mut scene = Scene::new().asks(VantageKind::CorednsOnHost, Udp, Fate::Answered).asks(
                VantageKind::Health,
                Udp,
                Fate::Leaked,
            );
            (scene.prediction.ended, scene.prediction_on_host.ended) = (Some(pods), Some(on_host));
            scene.findings().iter().filter(|finding| finding.code == "HDP413").count()
        };
        assert_eq!(found(Ended::Leaked, Ended::Answered), 0);
        assert_eq!(found(Ended::Answered, Ended::Answered), 1);
        assert_eq!(found(Ended::Leaked, Ended::Leaked), 1);
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
