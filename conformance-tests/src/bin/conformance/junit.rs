//! The report in JUnit's XML, for machines: a suite for each runtime.

use std::fmt::Write as _;

use crate::results::{Report, Verdict};

pub(crate) fn write(report: &Report) -> String {
    let mut out =
        String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"conformance\">\n");
    for runtime in &report.runtimes {
        let (_, skipped, failed) = runtime.counts();
        let name = escaped(&runtime.name);
        let _ = writeln!(
            out,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\" time=\"{:.3}\">",
            runtime.cases.len(),
            runtime.seconds(),
        );
        for case in &runtime.cases {
            let _ = write!(
                out,
                "    <testcase classname=\"{name}\" name=\"{}\" time=\"{:.3}\"",
                escaped(&case.case),
                case.took
            );
            let _ = match &case.verdict {
                Verdict::Passed => writeln!(out, "/>"),
                Verdict::Skipped { why } => {
                    writeln!(out, "><skipped message=\"{}\"/></testcase>", escaped(why))
                }
                Verdict::Failed { why } => {
                    let first = escaped(why.lines().next().unwrap_or_default());
                    writeln!(out, "><failure message=\"{first}\">{}</failure></testcase>", escaped(why))
                }
            };
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no other control characters, not even escaped.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_failed_and_why_something_was_skipped() {
        let mut report = Report::default();
        for line in [
            r#"{"runtime":"a","notes":[],"case":"x_01_y","id":"X-01","title":"y","result":"passed","took":0.5,"late":[7]}"#,
            r#"{"runtime":"a","notes":[],"case":"x_02_z","id":"X-02","title":"z","result":"skipped","why":"no <threads>"}"#,
            r#"{"runtime":"a","notes":[],"case":"x_03_q","id":"X-03","title":"q","result":"failed","took":1,"why":"\"a\"\u0007\nb"}"#,
        ] {
            report.add(line).unwrap();
        }
        let xml = write(&report);
        assert!(
            xml.contains(
                r#"<testsuite name="a" tests="3" failures="1" errors="0" skipped="1" time="1.500">"#
            )
        );
        assert!(xml.contains(r#"name="x_01_y" time="0.500"/>"#));
        assert!(xml.contains(r#"<skipped message="no &lt;threads&gt;"/>"#));
        assert!(
            xml.contains("<failure message=\"&quot;a&quot;\u{fffd}\">&quot;a&quot;\u{fffd}\nb</failure>")
        );
    }
}
