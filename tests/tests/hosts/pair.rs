//! Two hosts on one link, each with a node.

use vine_tests::lab::{Lab, Node, NodeSpec};

/// Who has the other's address in its configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Knows {
    /// Only a knows where b is.
    OnlyA,
    /// Only b knows where a is.
    OnlyB,
    /// Both know.
    Both,
}

/// Nodes a and b with identities and configurations, not yet started.
///
/// Underlay: 192.0.2.1 and .2, 2001:db8::1 and ::2. Overlay: 10.42.1.0/24 and 10.42.2.0/24, fd42:0:0:1::/64 and :2::/64.
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    /// The name of a's link to b, and of b's to a.
    pub(crate) links: (String, String),
    pub(crate) lab: Lab,
}

impl Pair {
    /// `None` where the test has to be left out. `v6` says which underlay the configurations name.
    pub(crate) fn new(test: &str, knows: Knows, v6: bool) -> Option<Pair> {
        let lab = Lab::open(test)?;
        let (host_a, host_b) = (lab.host("a"), lab.host("b"));
        let links =
            lab.link(&host_a, &["192.0.2.1/24", "2001:db8::1/64"], &host_b, &["192.0.2.2/24", "2001:db8::2/64"]);
        let mut a = Node::new(&host_a, NodeSpec::numbered("a", 1));
        let mut b = Node::new(&host_b, NodeSpec::numbered("b", 2));
        a.allow(&b);
        b.allow(&a);
        let (at_a, at_b) = if v6 { ("[2001:db8::1]", "[2001:db8::2]") } else { ("192.0.2.1", "192.0.2.2") };
        if knows != Knows::OnlyB {
            a.bootstrap(&b, at_b);
        }
        if knows != Knows::OnlyA {
            b.bootstrap(&a, at_a);
        }
        a.write_config();
        b.write_config();
        Some(Pair { a, b, links, lab })
    }

    /// As [`Pair::new`] over IPv4, with both daemons up and connected.
    pub(crate) fn connected(test: &str, knows: Knows) -> Option<Pair> {
        Pair::connected_over(test, knows, false)
    }

    /// As [`Pair::new`], with both daemons up and connected.
    pub(crate) fn connected_over(test: &str, knows: Knows, v6: bool) -> Option<Pair> {
        let mut pair = Pair::new(test, knows, v6)?;
        pair.start();
        Some(pair)
    }

    /// Starts both daemons and waits until they are connected.
    pub(crate) fn start(&mut self) {
        self.a.up();
        self.b.up();
        self.a.wait_connected(&self.b);
    }
}
