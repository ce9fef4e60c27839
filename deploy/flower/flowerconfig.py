# SPDX-License-Identifier: Apache-2.0
"""Settings of Flower for operations: `bookdrop flower --conf deploy/flower/flowerconfig.py`.

Every option of Flower can be set here under its own name. Do not set basic_auth in a file that other users can read:
use the variable FLOWER_BASIC_AUTH, or a configuration file with mode 0600.
"""

# Behind a proxy: only the proxy reaches Flower, and xheaders reads the client's address from its headers. In a container
# the address is "0.0.0.0". If the proxy serves Flower below a path, set url_prefix to that path.
address = "127.0.0.1"
port = 5555
xheaders = True

# Limits of what Flower keeps in memory for its own pages. Print jobs, Returns and their history are in the database.
max_tasks = 20_000
max_workers = 500
purge_offline_workers = 24 * 3600

# Name, id, arguments (the id of the event or print job), state, result, time, runtime, worker.
tasks_columns = "name,uuid,args,state,result,received,runtime,worker"
natural_time = True

# For a wall display, start a second Flower with --read-only: it permits no action.
# With RabbitMQ and its management plugin, set broker_api so that the page Broker shows the lengths of queues.
