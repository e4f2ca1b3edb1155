#!/bin/sh
exec n8n "$@"
