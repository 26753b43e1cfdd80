//! Picking objects by label.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::rules::label::{label_key, label_value};

/// Requirements on labels, all of which hold; none picks everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The label is there with one of these values.
    In(String, BTreeSet<String>),
    /// The label is missing or has none of these values.
    NotIn(String, BTreeSet<String>),
    /// The label is there.
    Exists(String),
    /// The label is missing.
    Missing(String),
}

impl LabelSelector {
    /// Picks objects that have all these labels.
    pub fn matching(labels: &BTreeMap<String, String>) -> Self {
        let one = |(key, value): (&String, &String)| {
            Requirement::In(key.clone(), BTreeSet::from([value.clone()]))
        };
        Self { requirements: labels.iter().map(one).collect() }
    }

    /// Whether labels, looked up by `label`, fulfil every requirement.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|value| !values.contains(value))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
        })
    }
}

/// Whether a map of labels has every pair of another.
pub fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Why a selector is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label selector {text:?}: {problem}")]
pub struct SelectorError {
    text: String,
    problem: String,
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    /// Reads kubectl's form: `app=web,tier!=db,env in (a, b),!old,new`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let terms = split_terms(text).into_iter().map(str::trim).filter(|term| !term.is_empty());
        let requirements = terms.map(parse_term).collect::<Result<_, _>>();
        let requirements =
            requirements.map_err(|problem| SelectorError { text: text.to_owned(), problem })?;
        Ok(Self { requirements })
    }
}

/// Splits at commas that are not in parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn parse_term(term: &str) -> Result<Requirement, String> {
    let key = |key: &str| label_key(key.trim()).map(|()| key.trim().to_owned());
    let one =
        |value: &str| label_value(value.trim()).map(|()| BTreeSet::from([value.trim().to_owned()]));
    if let Some(missing) = term.strip_prefix('!') {
        return Ok(Requirement::Missing(key(missing)?));
    }
    if let Some((name, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, one(value)?));
    }
    if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::In(key(name)?, one(value)?));
    }
    let Some((name, rest)) = term.split_once(char::is_whitespace) else {
        return Ok(Requirement::Exists(key(term)?));
    };
    let (operator, list) = rest.split_once('(').ok_or("expected in (...) or notin (...)")?;
    let list = list.trim().strip_suffix(')').ok_or("a closing parenthesis is missing")?;
    let mut values = BTreeSet::new();
    for value in list.split(',') {
        values.extend(one(value)?);
    }
    match operator.trim() {
        "in" => Ok(Requirement::In(key(name)?, values)),
        "notin" => Ok(Requirement::NotIn(key(name)?, values)),
        other => Err(format!("unknown operator {other:?}, expected in or notin")),
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::In(key, values) if values.len() == 1 => {
                    write!(f, "{key}={}", join(values))?
                }
                Requirement::In(key, values) => write!(f, "{key} in ({})", join(values))?,
                Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", join(values))?,
                Requirement::Exists(key) => f.write_str(key)?,
                Requirement::Missing(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(selector: &str, labels: &[(&str, &'static str)]) -> bool {
        let selector: LabelSelector = selector.parse().unwrap();
        let again: LabelSelector = selector.to_string().parse().unwrap();
        assert_eq!(selector, again);
        selector
            .matches(|key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    #[test]
    fn kubectl_selectors() {
        let web = [("app", "web"), ("tier", "front")];
        for yes in [
            "",
            "app=web",
            "app==web,tier!=db",
            "app in (api, web)",
            "tier",
            "!old",
            "tier notin (db)",
        ] {
            assert!(picks(yes, &web), "{yes}");
        }
        for no in ["app=api", "!app", "old", "app notin (web)", "app in (a,b),tier"] {
            assert!(!picks(no, &web), "{no}");
        }
        for bad in ["a b", "in (x", "app between (1)", "a=b=c", "=x"] {
            assert!(bad.parse::<LabelSelector>().is_err(), "{bad}");
        }
    }
}
