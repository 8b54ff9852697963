//! Names and paths of an image, which may be of a hostile hand: they do not speak to the terminal.

pub(super) fn harmless(line: &str) -> String {
    let harmless = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    line.chars().map(harmless).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_written_out() {
        assert_eq!(harmless("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(harmless("/tmp/ü ø"), "/tmp/ü ø");
    }
}
