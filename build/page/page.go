// Package page keeps tables of the documentation as they are made from the code.
package page

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// Fill puts tables into a page: each between a line that says what it is and how it is made, and one that
// says where it ends. It fails if the page is not as it would be written, unless write is set.
func Fill(path string, write bool, command string, tables map[string]string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	now := old
	for name, table := range tables {
		if now, err = replace(now, name, command, table); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	switch {
	case bytes.Equal(old, now):
		return nil
	case !write:
		return fmt.Errorf("%s is out of date: %s", path, command)
	}
	return os.WriteFile(path, now, 0o644)
}

// replace returns text with what is between the marks of a table replaced.
func replace(text []byte, name, command, table string) ([]byte, error) {
	begin := fmt.Sprintf("<!-- %s: %s -->\n", name, command)
	end := fmt.Sprintf("<!-- end of %s -->\n", name)
	before, rest, opened := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !opened || !closed {
		return nil, fmt.Errorf("no lines %q and %q", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return []byte(before + begin + table + end + after), nil
}
