package api

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
)

// An auditLine collects what one debug line says about one request, or one authentication.
type auditLine struct {
	h        *handler
	name     string
	r        *http.Request
	code     int
	clientID string
	err      error
}

func (h *handler) audit(name string, r *http.Request) *auditLine {
	return &auditLine{h: h, name: name, r: r}
}

// succeed answers with fields and the status, also as a field.
func (a *auditLine) succeed(w http.ResponseWriter, status int, fields map[string]string) {
	a.code = status
	fields["code"] = strconv.Itoa(status)
	writeBody(w, status, encodeJSON(fields))
}

// refuse answers with the text of err and, unless err says that the request is not to blame,
// with status.
func (a *auditLine) refuse(w http.ResponseWriter, status int, err error) {
	status = statusOf(w, err, status)
	if status == http.StatusUnauthorized {
		challenge(w)
	}
	a.code, a.err = status, err
	writeBody(w, status, encodeJSON(map[string]string{"code": strconv.Itoa(status), "error": err.Error()}))
}

// log writes the line. Headers that hold secrets stay out of it.
func (a *auditLine) log() {
	ctx := context.Background()
	if !a.h.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	header := a.r.Header.Clone()
	for _, secret := range []string{"Authorization", "Proxy-Authorization", "Cookie"} {
		header.Del(secret)
	}
	attrs := []slog.Attr{
		slog.String("remoteAddr", a.r.RemoteAddr),
		slog.String("method", a.r.Method),
		slog.String("url", a.r.URL.EscapedPath()),
		slog.Any("header", header),
		slog.String("host", a.r.Host),
		slog.Int("code", a.code),
		slog.String("clientID", a.clientID),
	}
	if a.err != nil {
		attrs = append(attrs, slog.String("status", "fail"), slog.String("error", a.err.Error()))
	} else {
		attrs = append(attrs, slog.String("status", "success"))
	}
	a.h.log.LogAttrs(ctx, slog.LevelDebug, a.name, attrs...)
}
