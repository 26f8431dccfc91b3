//! Which row groups cannot hold a row that passes: by least and greatest values, and by bloom filters.
//!
//! The answer errs to one side: what is not understood may pass.

use super::super::Table;
use super::super::observed::LeftOut;
use super::footers::OpenFile;
use crate::query::ast::{self, Compare, Node, Test, TextTest};

/// What shows that the row group holds no row for which `node` is true.
pub(super) fn left_out<R: Table>(file: &OpenFile, group: usize, node: &Node<R>) -> Option<LeftOut> {
    if !may_pass(file, group, node, false) {
        return Some(LeftOut::Statistics);
    }
    (!may_pass(file, group, node, true)).then_some(LeftOut::Bloom)
}

/// `blooms`: ask bloom filters too, which have to be read.
fn may_pass<R: Table>(file: &OpenFile, group: usize, node: &Node<R>, blooms: bool) -> bool {
    match node {
        Node::All => true,
        Node::Not(inner) => match &**inner {
            Node::Test(field, Test::Exists) if field.key.is_none() => {
                file.chunk(group, field.column.name()).is_none_or(|chunk| !chunk.is_full())
            }
            Node::All | Node::Not(_) | Node::And(_) | Node::Or(_) | Node::Test(..) => true,
        },
        Node::And(nodes) => nodes.iter().all(|node| may_pass(file, group, node, blooms)),
        Node::Or(nodes) => nodes.iter().any(|node| may_pass(file, group, node, blooms)),
        Node::Test(field, test) => may_hold(file, group, field, test, blooms),
    }
}

/// False if no row passes the test; `blooms` as above.
pub(super) fn may_hold<R: Table>(
    file: &OpenFile,
    group: usize,
    field: &ast::Field<R>,
    test: &Test,
    blooms: bool,
) -> bool {
    if field.key.is_some() {
        return true;
    }
    // A column that the file does not have is null: no test passes.
    let Some(chunk) = file.chunk(group, field.column.name()) else { return false };
    if chunk.is_empty() {
        return false;
    }
    match test {
        Test::Number(compare, wanted) => match (chunk.bounds(), i64::try_from(*wanted)) {
            (Some((least, greatest)), Ok(wanted)) if least >= 0 && greatest >= 0 => {
                within(*compare, wanted, least, greatest)
            }
            (Some(_) | None, _) => true,
        },
        Test::Time(compare, wanted) => {
            chunk.bounds().is_none_or(|(least, greatest)| within(*compare, *wanted, least, greatest))
        }
        Test::Text(TextTest::Pattern(pattern)) if blooms => {
            pattern.exact().is_none_or(|text| file.may_hold(chunk, text.as_str()))
        }
        Test::Exists | Test::Bool(_) | Test::Text(_) | Test::NotText(_) => true,
    }
}

fn within(compare: Compare, wanted: i64, least: i64, greatest: i64) -> bool {
    match compare {
        Compare::Equal => least <= wanted && wanted <= greatest,
        Compare::NotEqual => least != wanted || greatest != wanted,
        Compare::Less => least < wanted,
        Compare::LessEqual => least <= wanted,
        Compare::Greater => greatest > wanted,
        Compare::GreaterEqual => greatest >= wanted,
    }
}
