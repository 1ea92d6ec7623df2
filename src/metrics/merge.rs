//! Merges pages of metrics: each family appears once, with the samples of every page.

/// A family of metrics as one page has it: its name, its head and its samples.
struct Family<'a> {
    name: &'a str,
    /// The lines with the help, the type and the unit of the family.
    head: Vec<&'a str>,
    samples: Vec<&'a str>,
}

/// The line that ends a page.
const END: &str = "# EOF";

/// Puts pages of `OpenMetrics` text together.
pub(super) fn pages(pages: &[String]) -> String {
    let mut merged: Vec<Family<'_>> = Vec::new();
    for family in pages.iter().flat_map(|page| families(page)) {
        match merged.iter_mut().find(|known| known.name == family.name) {
            Some(known) => known.samples.extend(family.samples),
            None => merged.push(family),
        }
    }
    let lines = merged.into_iter().flat_map(|family| family.head.into_iter().chain(family.samples));
    let mut text: String = lines.flat_map(|line| [line, "\n"]).collect();
    text.push_str(END);
    text.push('\n');
    text
}

fn families(page: &str) -> Vec<Family<'_>> {
    let mut found: Vec<Family<'_>> = Vec::new();
    for line in page.lines().filter(|line| *line != END) {
        let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let name = described.and_then(|rest| rest.split(' ').next());
        match (name, found.last_mut()) {
            (Some(name), last) if last.as_ref().is_none_or(|last| last.name != name) => {
                found.push(Family { name, head: vec![line], samples: Vec::new() });
            }
            (_, Some(last)) if line.starts_with('#') => last.head.push(line),
            (_, Some(last)) => last.samples.push(line),
            (_, None) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_stands_once_with_the_samples_of_all_pages() {
        let page =
            |route: &str| format!("# HELP a A.\n# TYPE a gauge\na{{route=\"{route}\"}} 1\n# EOF\n");
        let other = "# HELP b B.\n# TYPE b gauge\nb 2\n# EOF\n".to_owned();
        assert_eq!(
            pages(&[other, page("x"), page("y")]),
            "# HELP b B.\n# TYPE b gauge\nb 2\n# HELP a A.\n# TYPE a gauge\n\
             a{route=\"x\"} 1\na{route=\"y\"} 1\n# EOF\n"
        );
    }
}
