package report

import "io"

// WriteHTML writes one page.
func (r *Result) WriteHTML(w io.Writer) error { return nil }
