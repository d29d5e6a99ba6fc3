package audit

import (
	"os"
	"strconv"
	"strings"
)

// Priorities of RFC 5424, section 6.2.1: facility 10 (security), severity 5 (notice) and 4 (warning).
const (
	notePriority  = 10*8 + 5
	alertPriority = 10*8 + 4
)

const (
	syslogApp   = "rtcd"
	syslogMsgID = "DICOM+RFC3881"
	byteOrder   = "\uFEFF" // before a message in UTF-8, RFC 5424, section 6.4
)

// appendSyslog appends a record as a message of RFC 5424.
func appendSyslog(buf []byte, r *record, host string) ([]byte, error) {
	body, err := dicomXML(r, host)
	if err != nil {
		return buf, err
	}
	priority := notePriority
	if _, _, alert := classify(&r.Event); alert {
		priority = alertPriority
	}
	buf = append(buf, '<')
	buf = strconv.AppendInt(buf, int64(priority), 10)
	buf = append(buf, ">1 "...)
	buf = r.Time.UTC().AppendFormat(buf, timeLayout)
	buf = append(buf, ' ')
	buf = append(buf, syslogName(host, 255)...)
	buf = append(buf, " "+syslogApp+" "...)
	buf = strconv.AppendInt(buf, int64(os.Getpid()), 10)
	buf = append(buf, " "+syslogMsgID+" - "+byteOrder...)
	return append(buf, body...), nil
}

// appendFrame appends a message with its length before it, as RFC 5425, section 4.3, and RFC 6587,
// section 3.4.1, have it.
func appendFrame(buf, message []byte) []byte {
	buf = strconv.AppendInt(buf, int64(len(message)), 10)
	buf = append(buf, ' ')
	return append(buf, message...)
}

// syslogName returns text as a field of a syslog header: printable ASCII of at most limit bytes.
func syslogName(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '_'
		}
		return r
	}, capped(text, limit))
	if text == "" {
		return "-"
	}
	return text
}
