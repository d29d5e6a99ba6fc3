// Command grafana writes build/grafana/rtcd.json, the dashboard of a server, from the panels listed in
// panels.go. With -check nothing is written: it fails if the file is not what it would write.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
)

const file = "build/grafana/rtcd.json"

func main() {
	check := flag.Bool("check", false, "write nothing, fail if the file is not up to date")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "grafana:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	now, err := dashboard(rows)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(file)
	if err == nil && bytes.Equal(old, now) {
		return nil
	}
	if check {
		return fmt.Errorf("%s is out of date: go run ./build/grafana", file)
	}
	return os.WriteFile(file, now, 0o644)
}

// A row is a group of panels.
type row struct {
	title  string
	panels []panel
}

// A panel is one plot, or one number if it is a stat.
type panel struct {
	title   string
	help    string
	unit    string // of Grafana
	stat    bool
	queries []query
}

// A query is an expression and how its series are named. In it @ stands for the matcher of the
// instances chosen, @group and @client for that and the one of the tenants, and @range for the time of
// a rate.
type query struct{ expr, legend string }

// expand returns the expression as it is in the dashboard.
func (q query) expand() string {
	return strings.NewReplacer(
		"@group", `instance=~"$instance",groupID=~"$tenant"`,
		"@client", `instance=~"$instance",clientID=~"$tenant"`,
		"@range", "$__rate_interval",
		"@", `instance=~"$instance"`,
	).Replace(q.expr)
}

const (
	columns = 24 // of Grafana's grid
	height  = 8
	low     = 4 // of a stat
)

type object = map[string]any

// dashboard returns the file.
func dashboard(rows []row) ([]byte, error) {
	source := object{"type": "prometheus", "uid": "${datasource}"}
	var panels []object
	y, id := 0, 0
	for _, r := range rows {
		id++
		panels = append(panels, object{
			"id": id, "type": "row", "title": r.title, "collapsed": false, "panels": []object{},
			"gridPos": object{"h": 1, "w": columns, "x": 0, "y": y},
		})
		y++
		x, tallest := 0, 0
		for _, p := range r.panels {
			id++
			w, h := columns/3, height
			if p.stat {
				w, h = columns/6, low
			}
			if x+w > columns {
				x, y, tallest = 0, y+tallest, 0
			}
			panels = append(panels, p.object(id, source, object{"h": h, "w": w, "x": x, "y": y}))
			x, tallest = x+w, max(tallest, h)
		}
		y += tallest
	}
	variable := func(name, label, of string) object {
		return object{
			"name": name, "label": label, "type": "query", "datasource": source, "query": of, "definition": of,
			"refresh": 2, "sort": 1, "includeAll": true, "multi": true, "allValue": ".*",
			"current": object{"text": "All", "value": "$__all"},
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(object{
		"title": "rtcd", "uid": "rtcd", "tags": []string{"rtcd", "webrtc"}, "schemaVersion": 39, "version": 1,
		"description": "One or more rtcd servers. Written by build/grafana of the project.",
		"editable":    true, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
		"time": object{"from": "now-3h", "to": "now"},
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": object{}},
			variable("instance", "Instance", "label_values(rtcd_build_info, instance)"),
			variable("tenant", "Tenant", "label_values(rtcd_ws_messages_total, clientID)"),
		}},
		"panels": panels,
	})
	return b.Bytes(), err
}

func (p *panel) object(id int, source, place object) object {
	var targets []object
	for i, q := range p.queries {
		targets = append(targets, object{
			"refId": string(rune('A' + i)), "datasource": source, "expr": q.expand(), "legendFormat": q.legend,
			"instant": p.stat, "range": !p.stat,
		})
	}
	o := object{
		"id": id, "title": p.title, "description": p.help, "datasource": source, "gridPos": place, "targets": targets,
		"fieldConfig": object{"defaults": object{"unit": p.unit, "min": 0}, "overrides": []object{}},
	}
	if p.stat {
		delete(o["fieldConfig"].(object)["defaults"].(object), "min")
		o["type"] = "stat"
		o["options"] = object{"reduceOptions": object{"calcs": []string{"lastNotNull"}}, "textMode": "auto"}
	} else {
		o["type"] = "timeseries"
		o["options"] = object{"legend": object{"displayMode": "list", "placement": "bottom"}, "tooltip": object{"mode": "multi"}}
	}
	return o
}
