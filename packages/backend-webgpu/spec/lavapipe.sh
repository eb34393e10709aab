#!/usr/bin/env bash
# Downloads lavapipe, a Vulkan driver on the processor that has 16-bit floats, from Debian's backports into a folder, and prints the variables with
# which node uses it. It is not installed: every command would find it. Debian 12's own version is too old for Dawn.
set -euo pipefail
folder=$(realpath -m "$1")
. /etc/os-release
suite=$VERSION_CODENAME-backports
mkdir -p "$folder"/{sources,lists/partial,archives/partial}
cp /etc/apt/sources.list.d/debian.sources "$folder/sources"
sed -e '/^$/q' -e "s/^Suites:.*/Suites: $suite/" /etc/apt/sources.list.d/debian.sources > "$folder/sources/backports.sources"
apt() {
  apt-get -o "Dir::Etc::sourceparts=$folder/sources" -o Dir::Etc::sourcelist=/dev/null -o "Dir::State::lists=$folder/lists" \
    -o "Dir::Cache=$folder" -o APT::Sandbox::User=root "$@" >&2
}
apt update
apt install --yes --download-only --no-install-recommends -t "$suite" mesa-vulkan-drivers
for package in "$folder"/archives/*.deb; do dpkg -x "$package" "$folder/root"; done
driver=$(echo "$folder"/root/usr/share/vulkan/icd.d/lvp_icd*.json)
library=$(echo "$folder"/root/usr/lib/*/libvulkan_lvp.so)
test -e "$driver" && test -e "$library"
echo "VK_ICD_FILENAMES=$driver LD_LIBRARY_PATH=$(dirname "$library")"
