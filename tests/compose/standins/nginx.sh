#!/bin/sh
# What the official image does before its command: fill in the templates, where there are any.
set -eu
for template in /etc/nginx/templates/*.template; do
    [ -e "$template" ] || continue
    names=$(env | cut -d= -f1 | grep -E "${NGINX_ENVSUBST_FILTER:-}" | sed 's/.*/${&}/' | tr '\n' ' ')
    envsubst "$names" < "$template" > "/etc/nginx/conf.d/$(basename "$template" .template)"
done
exec "$@"
