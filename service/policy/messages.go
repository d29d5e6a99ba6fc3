package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// compileRules reads one direction. An exact type has to exist.
func (t *Table) compileRules(key string, rules []Rule, known []string) ([]rule, error) {
	if len(rules) > maxRules {
		return nil, fmt.Errorf("%w: %s: %d rules, at most %d", ErrConfig, key, len(rules), maxRules)
	}
	var out []rule
	seen := make(map[Rule]bool, len(rules))
	for i, r := range rules {
		c, err := t.compileRule(r, known)
		if err == nil && seen[r] {
			err = errors.New("is there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s[%d]: %w", ErrConfig, key, i, err)
		}
		seen[r] = true
		out = append(out, c)
	}
	return out, nil
}

func (t *Table) compileRule(r Rule, known []string) (rule, error) {
	var c rule
	switch {
	case (r.Type == "") == (r.TypeRE == ""):
		return c, errors.New("needs one of type and type_re")
	case r.Type != "" && !slices.Contains(known, r.Type):
		return c, fmt.Errorf("type: there is no message %.80q this way", r.Type)
	case len(r.TypeRE) > maxPatternBytes:
		return c, fmt.Errorf("type_re: %d bytes, at most %d", len(r.TypeRE), maxPatternBytes)
	case r.TypeRE != "":
		// Alone first: brackets that do not match could otherwise get around the anchors.
		if _, err := regexp.Compile(r.TypeRE); err != nil {
			return c, fmt.Errorf("type_re: %w", err)
		}
		re, err := regexp.Compile(`\A(?:` + r.TypeRE + `)\z`)
		if err != nil {
			return c, fmt.Errorf("type_re: %w", err)
		}
		for _, typ := range known {
			if re.MatchString(typ) {
				c.types = append(c.types, typ)
			}
		}
	default:
		c.types = []string{r.Type}
	}
	if r.Role != "" {
		var err error
		if c.need, err = t.role(r.Role); err != nil {
			return c, fmt.Errorf("role: %w", err)
		}
	}
	return c, nil
}

// In reports whether a message of a type may come from a client with roles r: it exists, the list
// lets it in, and r is enough for it. It is asked before the body is decoded, and allocates
// nothing whatever it is asked.
func (t *Table) In(r Roles, msgType string) bool {
	req, ok := t.in[msgType]
	return ok && t.meets(r, req) && listed(t.inOK, r, msgType)
}

// Out reports whether a message of a type may go to a client with roles r.
func (t *Table) Out(r Roles, msgType string) bool {
	return slices.Contains(outTypes, msgType) && listed(t.outOK, r, msgType)
}

// listed reports whether a list has a rule for a message. An empty list has one for all.
func listed(rules []rule, r Roles, msgType string) bool {
	if len(rules) == 0 {
		return true
	}
	for i := range rules {
		if (rules[i].need == Roles{} || r.has(rules[i].need)) && slices.Contains(rules[i].types, msgType) {
			return true
		}
	}
	return false
}
