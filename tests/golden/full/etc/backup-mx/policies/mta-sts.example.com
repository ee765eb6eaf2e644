version: STSv1
mode: enforce
mx: mail.example.com
mx: mx2.example.org
max_age: 2592000
