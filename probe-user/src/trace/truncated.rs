//! A truncated answer makes a client ask again over TCP (RFC 1035, section 4.2.1; RFC 7766): the two belong together.

use std::{collections::VecDeque, net::IpAddr};

use super::transaction::Transaction;
use crate::facts::Transport;

/// A client asks again at once.
const WINDOW_NS: u64 = 5_000_000_000;

/// Remembered at most.
const MAX: usize = 1024;

/// Truncated answers that nobody has asked again for, oldest first.
#[derive(Debug, Default)]
pub struct Truncated {
    waiting: VecDeque<Answer>,
}

#[derive(Debug)]
struct Answer {
    id: u32,
    started_ns: u64,
    netns: String,
    client: IpAddr,
    question: (Option<String>, Option<String>),
}

impl Truncated {
    /// Transactions come as they are told. One over TCP gets the id of the one that it repeats.
    pub fn join(&mut self, transaction: &mut Transaction) {
        let now = transaction.started_ns;
        while self.waiting.len() >= MAX
            || self.waiting.front().is_some_and(|first| now.saturating_sub(first.started_ns) > WINDOW_NS)
        {
            self.waiting.pop_front();
        }
        let question = (transaction.qname.clone(), transaction.qtype.clone());
        let client = transaction.flow.src.ip();
        match transaction.flow.transport {
            Transport::Udp if transaction.truncated && question.0.is_some() => self.waiting.push_back(Answer {
                id: transaction.id,
                started_ns: now,
                netns: transaction.netns.clone(),
                client,
                question,
            }),
            Transport::Udp => {}
            Transport::Tcp => {
                let repeats = |answer: &Answer| {
                    answer.started_ns <= now
                        && answer.client == client
                        && answer.question == question
                        && answer.netns == transaction.netns
                };
                let found = self.waiting.iter().rposition(repeats).and_then(|at| self.waiting.remove(at));
                transaction.retry_of = found.map(|answer| answer.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::transaction::tests::example;

    fn asked(id: u32, transport: Transport, at_ms: u64) -> Transaction {
        let (mut one, _) = example();
        (one.id, one.flow.transport, one.started_ns) = (id, transport, at_ms * 1_000_000);
        one.truncated = transport == Transport::Udp;
        one
    }

    #[test]
    fn the_retry_over_tcp_names_the_truncated_answer_once() {
        let mut truncated = Truncated::default();
        truncated.join(&mut asked(1, Transport::Udp, 0));
        let mut retry = asked(2, Transport::Tcp, 5);
        truncated.join(&mut retry);
        assert_eq!(retry.retry_of, Some(1));
        let mut another = asked(3, Transport::Tcp, 6);
        truncated.join(&mut another);
        assert_eq!(another.retry_of, None);
    }

    #[test]
    fn another_name_another_client_another_time_are_no_retry() {
        let mut truncated = Truncated::default();
        truncated.join(&mut asked(1, Transport::Udp, 10));
        let mut name = asked(2, Transport::Tcp, 11);
        name.qname = Some("other.example.".into());
        let mut client = asked(3, Transport::Tcp, 11);
        client.flow.src.set_ip([10, 9, 8, 7].into());
        let mut before = asked(4, Transport::Tcp, 9);
        let mut late = asked(5, Transport::Tcp, 6000);
        for transaction in [&mut name, &mut client, &mut before, &mut late] {
            truncated.join(transaction);
            assert_eq!(transaction.retry_of, None, "{}", transaction.id);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut truncated = Truncated::default();
        for id in 0..3 * MAX as u32 {
            truncated.join(&mut asked(id, Transport::Udp, 0));
        }
        assert!(truncated.waiting.len() <= MAX);
    }
}
