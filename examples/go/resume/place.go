package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	hubv1 "switchyard.example/clients/gen/switchyard/v1"
)

// place is a file with a resume token.
type place struct {
	path, token string
}

// open reads the token of an earlier run, if there was one.
func open(path string) (*place, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &place{path: path, token: strings.TrimSpace(string(text))}, nil
}

// keep stores a token. Whoever reads the file finds the old one or the new one, whole, even after a loss of power.
func (p *place) keep(token string) error {
	fresh := p.path + ".new"
	file, err := os.Create(fresh)
	if err != nil {
		return err
	}
	_, err = file.WriteString(token + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	p.token = token
	return os.Rename(fresh, p.path)
}

// start is behind the place; the earliest event there is if there is no place.
func (p *place) start() *hubv1.StartPosition {
	if p.token == "" {
		earliest := &hubv1.StartPosition_Preset{Preset: hubv1.StartPreset_START_PRESET_EARLIEST}
		return &hubv1.StartPosition{Position: earliest}
	}
	return &hubv1.StartPosition{Position: &hubv1.StartPosition_ResumeToken{ResumeToken: p.token}}
}
